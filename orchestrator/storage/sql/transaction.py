"""One writing transaction on a SQL database, after its locks and before its commit.

Nothing is written while the steps run: what they change is kept and read by the steps after them, and written at the
end, together. So a step that fails is forgotten, and the append lock is held over few round trips.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from orchestrator.crash_points import crash_point
from orchestrator.domain.events import ClockRegressed, FileWritten, NewEvent, Recorded
from orchestrator.domain.policy import Action, Policies, PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need
from orchestrator.domain.snapshot import Snapshot
from orchestrator.errors import Conflict
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.transaction import Running, StoredAnswer
from orchestrator.ports.workspaces import Lease, StoredWorkspace
from orchestrator.storage.sql import flush, presence, rows
from orchestrator.storage.sql import keys as access
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.changes import Changes
from orchestrator.storage.sql.path_counts import Range, count_paths, paths_of
from orchestrator.storage.sql.policy_cache import PolicyCache, Stamp
from orchestrator.storage.sql.schema import NOT_A_WRITE, events, leases, workspaces
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.told import Told, answered, leases_of, recorded_under
from orchestrator.storage.sql.workspace_rows import Found, fleet_of, same_cycle


@dataclass(frozen=True, kw_only=True)
class Instants:
    """What was read after the last lock: the store's time, how far the clock stands behind it, the last position.

    ``policies`` says which layers are stored.
    """

    now: datetime
    clock_behind_ms: int
    last_position: int
    policies: Stamp


class SqlTransaction:
    """``Transaction`` over ``Statements``; ``held`` are the locked rows, ``absent`` the ids that have none."""

    def __init__(
        self,
        sql: Statements,
        held: Mapping[str, Found],
        absent: Collection[str],
        instants: Instants,
        told: Told,
        cache: PolicyCache,
    ) -> None:
        self._sql, self._held, self._told, self._cache = sql, held, told, cache
        self._writable = frozenset(held) | frozenset(absent)
        self._done = self._at_hand = Changes()
        self._position = instants.last_position
        self._stamp = instants.policies
        self._policies: Policies | None = None
        self._open_cycles: dict[str, int] | None = None
        self._budgets: dict[str, datetime | None] = {}
        self.now = instants.now
        self.clock_behind_ms = instants.clock_behind_ms

    @property
    def appended(self) -> list[Recorded]:
        """Return what was appended by the steps that have ended."""
        return self._done.events

    def part(self) -> AbstractContextManager[None]:
        """Let one step's changes be made or, where it raises, forgotten."""
        return _Part(self)

    def begin_part(self) -> int:
        """Keep what changes from now on apart; return the last position so far."""
        self._at_hand = Changes()
        return self._position

    def end_part(self, *, forget_to: int | None) -> None:
        """Take up what was kept apart; or, with the position that was the last one then, forget it."""
        if forget_to is None:
            self._done.absorb(self._at_hand)
        else:
            self._position = forget_to
        self._at_hand = self._done

    def is_busy(self, names: Collection[str]) -> bool:
        """Return whether another transaction holds one of these rows, so that this one left it out."""
        return not self._writable.issuperset(names)

    def flush(self) -> None:
        """Write everything that the steps have changed. Raises ``Conflict``, ``StorageUnavailable``."""
        flush.write(self._sql, self._held, self._done, self.now, self._appended)

    def _appended(self) -> None:
        if self._done.events:
            crash_point("write.appended", self._done.events)

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a locked workspace, as it was last saved."""
        found = self._found(workspace)
        return found.stored if found else None

    def _found(self, workspace: str) -> Found | None:
        for changes in (self._at_hand, self._done):
            if workspace in changes.workspaces:
                return changes.workspaces[workspace]
        return self._held.get(workspace)

    def locked(self) -> Sequence[str]:
        """Return the ids of the rows this transaction holds, in order."""
        return tuple(self._held)

    def policies(self) -> Policies:
        """Return the stored policy layers, as they are at this instant: only who holds the append lock changes one."""
        if self._policies is None:
            self._policies = self._cache.at(self._sql, self._stamp)
        changed = self._done.layers | self._at_hand.layers
        return Policies(layers={**self._policies.layers, **changed}) if changed else self._policies

    def append(self, new: Sequence[NewEvent]) -> list[Recorded]:
        """Append in the order given; where something unique is taken, the transaction is refused at its end."""
        recorded = []
        for event in new:
            self._position += 1
            recorded.append(rows.recorded(rows.sourced(event), position=self._position, recorded_at=self.now))
        self._at_hand.events += recorded
        for event in recorded:
            if event.source_id is not None:
                self._at_hand.by_source[event.source or "", event.source_id] = event
        return recorded

    def save(self, changed: Sequence[StoredWorkspace]) -> None:
        """Write the rows of held workspaces. Raises ``Conflict`` for one that this transaction does not hold."""
        for stored in changed:
            name = stored.state.workspace
            check_held(name, self._writable)
            self._at_hand.workspaces[name] = self._found_after(self._found(name), stored)
            if stored.lease is not None:
                self._at_hand.leases[name] = stored.lease

    def _found_after(self, before: Found | None, stored: StoredWorkspace) -> Found:
        """Return the row as it will be: in today's shape. A lease that an older version took in the row stays there.

        That version renews it there.
        """
        lease_until = before.lease_until if before is not None and same_cycle(before, stored) else None
        return Found(stored=stored, is_old=False, lease_until=lease_until)

    def leases(self, names: Collection[str]) -> dict[str, Lease]:
        """Return the leases of those of these locked workspaces whose cycle is open, and lock them, in id order."""
        found: dict[str, Lease] = {}
        unread: dict[str, Found] = {}
        for name in names:
            one, before = self._found(name), self._held.get(name)
            if one is None or one.stored.state.cycle is None:
                continue
            given = self._at_hand.leases.get(name) or self._done.leases.get(name)
            if before is None or not same_cycle(before, one.stored):
                found |= {} if given is None else {name: given}
            elif name in self._told.leases:
                kept = self._told.leases[name]
                found |= {} if kept is None else {name: kept}
            else:
                unread[name] = before
        return found | leases_of(self._sql, unread)

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart's read model."""
        for known in (self._at_hand.restarts, self._done.restarts, self._told.restarts):
            if restart in known:
                return known[restart]
        return lookups.restart(self._sql, restart)

    def save_restarts(self, records: Sequence[RestartProjection]) -> None:
        """Insert or replace read models."""
        self._at_hand.restarts |= {record.id: record for record in records}

    def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep states as they were right after events of this transaction; none costs nothing."""
        self._at_hand.snapshots += snapshots

    def save_policy(self, layer: PolicyLayer) -> None:
        """Insert or replace a policy layer, and note that no open window of its scope follows it yet."""
        self._at_hand.layers[layer.scope] = layer

    def note_recomputed(self, done: Recomputation, to: str | None) -> None:
        """Note that open windows follow a layer up to a workspace, None: all of them."""
        self._at_hand.recomputed.append((done, to))

    def count_paths(self, workspace: str, from_position: int, to_position: int, since: datetime | None) -> int:
        """Count the distinct paths of the range's writes whose action is not ``record``."""
        unwritten = {
            event.data.path
            for event in (*self._done.events, *self._at_hand.events)
            if event.workspace == workspace
            and isinstance(event.data, FileWritten)
            and event.data.action is not Action.RECORD
            and from_position <= event.position <= to_position
        }
        wanted = Range(workspace, from_position, to_position, since)
        if unwritten:
            return len(unwritten.union(paths_of(self._sql, wanted)))
        if wanted not in self._told.paths:
            self._told.paths |= count_paths(self._sql, [wanted])
        return self._told.paths[wanted]

    def running(self, fleet: str) -> Running:
        """Count the open cycles; exact, since every start holds the append lock."""
        if self._open_cycles is None:
            self._open_cycles = self._read_open_cycles()
        counts = dict(self._open_cycles)
        for name, after in (self._done.workspaces | self._at_hand.workspaces).items():
            before = self._held.get(name)
            if before is not None and before.stored.state.cycle is not None:
                counts[fleet_of(before.stored.state)] -= 1
            if after.stored.state.cycle is not None:
                of_it = fleet_of(after.stored.state)
                counts[of_it] = counts.get(of_it, 0) + 1
        return Running(total=sum(counts.values()), in_fleet=counts.get(fleet, 0))

    def _read_open_cycles(self) -> dict[str, int]:
        """Return how many cycles are open in each fleet, as the database has it: read once, changes are added."""
        in_rows = sa.select(workspaces.c.fleet).where(workspaces.c.lease_until.is_not(None))
        open_ones = sa.union_all(in_rows, sa.select(leases.c.fleet)).subquery()
        counted = sa.select(open_ones.c.fleet, sa.func.count()).group_by(open_ones.c.fleet)
        return {row[0]: row[1] for row in self._sql.run(counted)}

    def by_source(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Recorded]:
        """Return the events that were recorded for these (source, source_id)."""
        found: dict[tuple[str, str], Recorded] = {}
        unread = set()
        for key in keys:
            event = self._at_hand.by_source.get(key) or self._done.by_source.get(key) or self._told.sources.get(key)
            if event is not None:
                found[key] = event
            elif key not in self._told.sources:
                unread.add(key)
        return found | recorded_under(self._sql, unread)

    def answer(self, actor: str, key: str) -> StoredAnswer | None:
        """Return what was answered to this actor's idempotency key, if it came before."""
        for known in (self._at_hand.answers, self._done.answers, self._told.answers):
            if (actor, key) in known:
                return known[actor, key]
        return answered(self._sql, [(actor, key)]).get((actor, key))

    def remember(self, actor: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer to an idempotency key. Raises ``Conflict`` if the key has one."""
        if (actor, key) in self._at_hand.answers or (actor, key) in self._done.answers:
            raise Conflict(f"idempotency key {key!r} of {actor} was answered already")
        self._at_hand.answers[actor, key] = answer

    def away(self) -> dict[Need, datetime]:
        """Return what nobody serves as the log says, at this instant."""
        away = presence.read_away(self._sql)
        for came, went in (*self._done.away, *self._at_hand.away):
            away = {need: since for need, since in away.items() if need not in went}
            away |= {need: since for need, since, _ in came}
        return away

    def save_away(self, came: Sequence[tuple[Need, datetime, int]], went: Sequence[Need]) -> None:
        """Keep what is away from now on, and drop what is back."""
        if came or went:
            self._at_hand.away.append((came, went))

    def access_keys(self) -> list[StoredKey]:
        """Return all keys, as they are at this instant."""
        return access.with_changes(access.read_keys(self._sql, digests=True), {**self._done.keys, **self._at_hand.keys})

    def save_key(self, key: StoredKey) -> None:
        """Insert a key, or replace what is kept of it."""
        self._at_hand.keys[key.id] = key

    def write_budget(self, key: str) -> datetime | None:
        """Return until when a key has used up its writes."""
        for changes in (self._at_hand, self._done):
            if key in changes.budgets:
                return changes.budgets[key]
        if key not in self._budgets:
            self._budgets[key] = access.read_budget(self._sql, key)
        return self._budgets[key]

    def save_write_budget(self, key: str, used_until: datetime) -> None:
        """Keep until when a key has used up its writes."""
        self._at_hand.budgets[key] = used_until

    def last_clock_regression_at(self) -> datetime | None:
        """Return ``recorded_at`` of the newest ``ClockRegressed``."""
        unwritten = (*self._done.events, *self._at_hand.events)
        if any(isinstance(event.data, ClockRegressed) for event in unwritten):
            return self.now
        newest = (
            sa.select(events.c.recorded_at)
            .where(events.c.type == "ClockRegressed", NOT_A_WRITE)
            .order_by(events.c.position.desc())
            .limit(1)
        )
        at: datetime | None = self._sql.run(newest).scalar_one_or_none()
        return at


class _Part:
    """``SqlTransaction.part``; a generator would take several times as long."""

    __slots__ = ("_position", "_tx")

    def __init__(self, tx: SqlTransaction) -> None:
        self._tx, self._position = tx, 0

    def __enter__(self) -> None:
        self._position = self._tx.begin_part()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._tx.end_part(forget_to=None if kind is None else self._position)


def check_held(workspace: str, writable: Collection[str]) -> None:
    """Raise ``Conflict`` for a row that a transaction wants to write but did not lock: a lost update otherwise."""
    if workspace not in writable:
        raise Conflict(f"workspace {workspace!r} is not held by this transaction; name it in write()")
