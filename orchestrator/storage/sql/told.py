"""What the steps of a transaction will ask for, read for all of them at once before the append lock is taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from orchestrator.domain.events import Recorded
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports.transaction import StoredAnswer
from orchestrator.ports.unit import Asked
from orchestrator.ports.workspaces import Lease
from orchestrator.storage.sql import rows
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.path_counts import Range, count_paths
from orchestrator.storage.sql.prepared import Prepared, one_of
from orchestrator.storage.sql.schema import events, idempotency_keys, leases
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.workspace_rows import Found, lease_in_row

_KEYS_AT_ONCE = 1_000
Named = tuple[str, str]

_OF = sa.bindparam("of", type_=sa.Text())
_RECORDED_UNDER = Prepared(
    lambda dialect: sa.select(events).where(events.c.source == _OF, one_of(events.c.source_id, "ids", dialect))
)
_ANSWERED = Prepared(
    lambda dialect: sa.select(idempotency_keys).where(
        idempotency_keys.c.actor == _OF, one_of(idempotency_keys.c.key, "ids", dialect)
    )
)
_LEASED = Prepared(
    lambda dialect: (
        sa.select(leases)
        .where(one_of(leases.c.workspace, "names", dialect))
        .order_by(leases.c.workspace)
        .with_for_update()
    )
)


@dataclass
class Told:
    """Answers by what was asked; a key that is missing was not asked for, one with None was and found nothing.

    All of it stays true while the rows are held; where another transaction takes a source's id or a request's key at
    this moment, this one is refused at its end and tried again.
    """

    sources: dict[Named, Recorded | None] = field(default_factory=dict)
    answers: dict[Named, StoredAnswer | None] = field(default_factory=dict)
    restarts: dict[str, RestartProjection | None] = field(default_factory=dict)
    leases: dict[str, Lease | None] = field(default_factory=dict)
    paths: dict[Range, int] = field(default_factory=dict)


def tell(sql: Statements, held: Mapping[str, Found], asked: Iterable[Asked], deciding: Collection[str]) -> Told:
    """Read what is asked for; of the rows ``deciding`` all that a decision needs."""
    told = Told()
    sources = {key for one in asked for key in one.sources}
    told.sources = dict.fromkeys(sources) | recorded_under(sql, sources)
    answers = {key for one in asked for key in one.answers}
    told.answers = dict.fromkeys(answers) | answered(sql, answers)
    named = [name for name in sorted(deciding) if name in held]
    unsettled = [held[name].stored.state.restart for name in named]
    ids = [restart.id for restart in unsettled if restart is not None]
    told.restarts = dict.fromkeys(ids) | restarts_of(sql, ids)
    told.leases = dict.fromkeys(named) | leases_of(sql, {name: held[name] for name in named})
    told.paths = count_paths(sql, [_waiting(held[name].stored.state) for name in named if _grew(held[name])])
    return told


def _grew(held: Found) -> bool:
    """Return whether a decision may need to know how many paths wait: not where its restart has counted them all."""
    state = held.stored.state
    restart = state.restart
    return state.pending_writes > 0 and (restart is None or restart.to_position != state.last_position)


def _waiting(state: WorkspaceState) -> Range:
    return Range(state.workspace, state.from_position, state.last_position, state.waits_since)


def recorded_under(sql: Statements, keys: Collection[Named]) -> dict[Named, Recorded]:
    """Return the events that were recorded for these (source, source_id)."""
    found: dict[Named, Recorded] = {}
    for source, ids in _by_first(keys):
        for some in _pages(ids):
            found |= {
                (source, row["source_id"]): rows.event_of(row) for row in sql.ask(_RECORDED_UNDER, of=source, ids=some)
            }
    return found


def answered(sql: Statements, keys: Collection[Named]) -> dict[Named, StoredAnswer]:
    """Return what was answered to these (actor, key)."""
    found: dict[Named, StoredAnswer] = {}
    for actor, names in _by_first(keys):
        for some in _pages(names):
            for row in sql.ask(_ANSWERED, of=actor, ids=some):
                found[actor, row["key"]] = StoredAnswer(fingerprint=row["fingerprint"], answer=row["answer"])
    return found


def restarts_of(sql: Statements, ids: Sequence[str]) -> dict[str, RestartProjection]:
    """Return the records of these restarts."""
    found: dict[str, RestartProjection] = {}
    for some in _pages(ids):
        found |= {record.id: record for record in lookups.restarts_named(sql, some)}
    return found


def leases_of(sql: Statements, held: Mapping[str, Found]) -> dict[str, Lease]:
    """Return the leases of the open cycles of these locked rows, and lock them, in id order."""
    found: dict[str, Lease] = {}
    beside = []
    for name in sorted(held):
        one = held[name]
        if one.stored.state.cycle is None:
            continue
        lease = lease_in_row(one.stored.state, one.lease_until) if one.lease_until is not None else None
        if lease is None:
            beside.append(name)
        else:
            found[name] = lease
    for some in _pages(beside):
        for row in sql.ask(_LEASED, names=some):
            found[row["workspace"]] = Lease(
                cycle=row["cycle"], fence=row["fence"], worker=row["worker"], until=row["until"]
            )
    return found


def _by_first(keys: Collection[Named]) -> list[tuple[str, list[str]]]:
    grouped: dict[str, list[str]] = {}
    for first, second in sorted(keys):
        grouped.setdefault(first, []).append(second)
    return list(grouped.items())


def _pages(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + _KEYS_AT_ONCE] for start in range(0, len(names), _KEYS_AT_ONCE)]
