"""What waits for the tick and for workers: ranges of indexes, so that a look costs what is due and nothing else.

Each branch is ``ORDER BY instant LIMIT n`` over the partial index of its column, never ``min(instant)``: PostgreSQL
takes a comparison with an instant that it does not know to hold for a third of all rows, even of a column that is
NULL everywhere, and so scanned 60,000 workspaces three times at each look (measured: 365 ms). Limits are written out
for the reason that ``statements.ONE`` gives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.serving import Serving
from orchestrator.ports.workspaces import Outlook
from orchestrator.storage.sql.capacity import has_room
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.database_time import DatabaseTime
from orchestrator.storage.sql.index_ranges import limit_of, rounded, wrapped
from orchestrator.storage.sql.prepared import Prepared, one_of
from orchestrator.storage.sql.recomputation import IS_BEHIND
from orchestrator.storage.sql.schema import executors_away, heartbeats, leases, policies, registrations, workspaces
from orchestrator.storage.sql.statements import ONE, Statements

TICK = "tick"
LAST_TICK = sa.select(heartbeats.c.at).where(heartbeats.c.name == TICK)

Now = sa.ColumnElement[datetime]
Branch = sa.Select[tuple[str, datetime]]
"""Ids of workspaces, each with an instant."""

_TICKED = (
    (workspaces.c.id, workspaces.c.due_at),
    (workspaces.c.id, workspaces.c.held_until),
    (workspaces.c.id, workspaces.c.lease_until),  # of a cycle that an older version leased
    (leases.c.workspace, leases.c.until),
)
_READY = (workspaces.c.id, workspaces.c.ready_at)
_NEVER = sa.cast(sa.null(), Instant()).label("at")

_kept = lru_cache(maxsize=64)
"""Statements are kept: to build and to spell one costs more than to run it."""


@dataclass(frozen=True, kw_only=True)
class Startable:
    """Which ready workspaces are wanted: those that have room, not those of ``except_fleets``, what ``serving`` serves.

    ``running_most`` bounds the cycles of all fleets together.
    """

    except_fleets: frozenset[str] = frozenset()
    serving: Serving | None = None
    running_most: int | None = None


def read_due(sql: Statements, time: DatabaseTime, limit: int) -> list[str]:
    """Return workspaces with something for the tick, oldest first."""
    return _oldest_first(_pairs(sql, _due_alone(time, limit)), limit)


def read_ready(sql: Statements, time: DatabaseTime, limit: int, wanted: Startable) -> list[str]:
    """Return workspaces that a worker may start now, the longest ready first."""
    return _oldest_first(_pairs(sql, _ready_alone(time, limit, wanted)), limit)


def read_next_instant(sql: Statements, time: DatabaseTime) -> datetime | None:
    """Return the earliest instant after now at which a branch has one more."""
    found = [at for _, at in _pairs(sql, _later_alone(time))]
    return min(found, default=None)


def read_outlook(sql: Statements, time: DatabaseTime, due_most: int, ready_most: int, wanted: Startable) -> Outlook:
    """Return what there is to do, in one statement."""
    found: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
    for row in sql.ask(_outlook(time, rounded(due_most), rounded(ready_most), wanted)):
        found[row["part"]].append((row["id"], row["at"]))
    return Outlook(
        now=found["now"][0][1],
        due=_oldest_first(found["due"], due_most),
        ready=_oldest_first(found["ready"], ready_most),
        next_at=min((at for _, at in found["next"]), default=None),
        waits=bool(found["waits"]),
        away=bool(found["away"]),
        recomputes=bool(found["recomputes"]),
        last_tick_at=next((at for _, at in found["ticked"]), None),
    )


@_kept
def _due_alone(time: DatabaseTime, limit: int) -> Prepared:
    return Prepared(lambda _: sa.union_all(*_due(_clock(time).now, limit)))


@_kept
def _ready_alone(time: DatabaseTime, limit: int, wanted: Startable) -> Prepared:
    return Prepared(lambda dialect: _ready(_clock(time).now, dialect, limit, wanted))


@_kept
def _later_alone(time: DatabaseTime) -> Prepared:
    return Prepared(lambda _: sa.union_all(*_later(_clock(time).now)))


@_kept
def _outlook(time: DatabaseTime, due_most: int, ready_most: int, wanted: Startable) -> Prepared:
    return Prepared(lambda dialect: _select_outlook(time, dialect, due_most, ready_most, wanted))


def _select_outlook(
    time: DatabaseTime, dialect: str, due_most: int, ready_most: int, wanted: Startable
) -> sa.CompoundSelect[*tuple[Any, ...]]:
    clock = _clock(time)
    now = clock.now
    parts = {
        "now": [sa.select(sa.null().label("id"), clock.read.c.wall.label("at"))],
        "due": _due(now, due_most),
        "ready": [_ready(now, dialect, ready_most, wanted)],
        "next": _later(now),
        "waits": [_first(_READY, workspaces.c.ready_at <= now, ONE)],
        "away": [wrapped(sa.select(sa.null().label("id"), executors_away.c.since.label("at")).limit(ONE))],
        "recomputes": [wrapped(sa.select(policies.c.scope.label("id"), _NEVER).where(IS_BEHIND).limit(ONE))],
        "ticked": [sa.select(sa.null(), heartbeats.c.at).where(heartbeats.c.name == _written(TICK))],
    }
    return sa.union_all(*(_named(part, branch) for part, branches in parts.items() for branch in branches))


@dataclass(frozen=True)
class _Clock:
    """The clock and the store's time, read once in a statement for all its branches."""

    read: sa.CTE

    @property
    def now(self) -> Now:
        """Return the store's time."""
        return sa.select(self.read.c.at).scalar_subquery()


def _clock(time: DatabaseTime) -> _Clock:
    return _Clock(sa.select(time.clock().label("wall"), time.store_time().label("at")).cte("clock"))


def _due(now: Now, limit: int) -> list[Branch]:
    return [_first(pair, pair[1] <= now, limit_of(limit)) for pair in _TICKED]


def _later(now: Now) -> list[Branch]:
    return [_first(pair, pair[1] > now, ONE) for pair in (*_TICKED, _READY)]


def _ready(now: Now, dialect: str, limit: int, wanted: Startable) -> Branch:
    conditions = [workspaces.c.ready_at <= now, has_room(dialect, wanted.running_most)]
    if wanted.serving is not None:
        conditions.append(_may_be_served(wanted.serving, dialect))
    if wanted.except_fleets:
        conditions.append(sa.not_(one_of(workspaces.c.fleet, sorted(wanted.except_fleets), dialect)))
    return _first(_READY, sa.and_(*conditions), limit_of(limit), workspaces.c.id)


def _first(
    pair: tuple[sa.Column[Any], sa.Column[Any]],
    condition: sa.ColumnElement[bool],
    limit: sa.ColumnElement[int],
    *then: sa.Column[Any],
) -> Branch:
    """Return the first rows of the index over an instant for which the condition holds."""
    name, at = pair
    return wrapped(sa.select(name.label("id"), at.label("at")).where(condition).order_by(at, *then).limit(limit))


def _named(part: str, branch: sa.Select[Any]) -> sa.Select[Any]:
    rows = branch.subquery()
    return sa.select(_written(part).label("part"), *rows.c)


def _written(text: str) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{text}'", sa.Text())


def _pairs(sql: Statements, prepared: Prepared) -> list[tuple[str, datetime]]:
    return [(row["id"], row["at"]) for row in sql.ask(prepared)]


def _oldest_first(found: Iterable[Any], limit: int) -> list[str]:
    oldest: dict[str, datetime] = {}
    for name, at in found:
        oldest[name] = min(at, oldest.get(name, at))
    return [name for _, name in sorted((at, name) for name, at in oldest.items())][:limit]


def _may_be_served(serving: Serving, dialect: str) -> sa.ColumnElement[bool]:
    """Say whether a worker serves a workspace; a state of the older shape holds its registration itself.

    A look-up for each row that is ready. As EXISTS, PostgreSQL joined all registrations there are (measured, 60,000:
    90 ms).
    """
    served = sa.and_(
        one_of(registrations.c.executor, sorted(serving.executors), dialect),
        one_of(registrations.c.pool, sorted(serving.pools), dialect),
    )
    own = sa.select(served).where(registrations.c.workspace == workspaces.c.id).scalar_subquery()
    return sa.or_(workspaces.c.folded_state.is_(None), sa.func.coalesce(own, sa.true()))
