"""One writing transaction on a SQL database, after its locks and before its commit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import sqlalchemy as sa

from orchestrator.crash_points import crash_point
from orchestrator.domain.events import NewEvent, Recorded
from orchestrator.domain.policy import Action, Policies, PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need
from orchestrator.domain.snapshot import Snapshot
from orchestrator.errors import Conflict, StorageUnavailable
from orchestrator.ports.store import Running, StoredAnswer
from orchestrator.ports.workspaces import Lease, StoredWorkspace
from orchestrator.storage.sql import presence, rows
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.schema import (
    IS_WRITE,
    NOT_A_WRITE,
    events,
    idempotency_keys,
    leases,
    policies,
    registrations,
    restarts,
    workspace_snapshots,
    workspaces,
)
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.workspace_rows import (
    Found,
    fleet_of,
    lease_in_row,
    lease_row,
    registration_row,
    workspace_row,
)

_KEYS_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True)
class Instants:
    """What was read after the last lock: the store's time, and how far the clock stands behind it."""

    now: datetime
    clock_behind_ms: int


class SqlTransaction:
    """``Transaction`` over ``Statements``; ``held`` are the locked rows, ``absent`` the ids that have none."""

    def __init__(self, sql: Statements, held: Mapping[str, Found], absent: Collection[str], instants: Instants) -> None:
        self._sql = sql
        self._held = dict(held)
        self._writable = frozenset(held) | frozenset(absent)
        self._locked = tuple(held)
        self.appended: list[Recorded] = []
        self.now = instants.now
        self.clock_behind_ms = instants.clock_behind_ms

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a locked workspace, as it was last saved."""
        found = self._held.get(workspace)
        return found.stored if found else None

    def locked(self) -> Sequence[str]:
        """Return the ids of the rows this transaction holds, in order."""
        return self._locked

    def policies(self) -> Policies:
        """Return the stored policy layers, as they are at this instant."""
        return lookups.policies(self._sql)

    def append(self, new: Sequence[NewEvent]) -> list[Recorded]:
        """Append in the order given, in one statement. Raises ``Conflict`` where (workspace, version) is taken."""
        if not new:
            return []
        sourced = [rows.sourced(event) for event in new]
        # SQLite draws positions in the order of VALUES; SQLAlchemy, asked to sort there, sends row by row.
        sort = self._sql.dialect != "sqlite"
        statement = sa.insert(events).returning(events.c.id, events.c.position, sort_by_parameter_order=sort)
        result = self._sql.run(statement, [rows.event_row(event, recorded_at=self.now) for event in sourced])
        positions: dict[str, int] = {row.id: row.position for row in result}
        recorded = [rows.recorded(event, position=positions[event.id], recorded_at=self.now) for event in sourced]
        if any(after.position <= before.position for before, after in pairwise(recorded)):
            raise StorageUnavailable("the database drew positions out of order; nothing was stored")
        self.appended += recorded
        crash_point("write.appended", recorded)
        return recorded

    def save(self, changed: Sequence[StoredWorkspace]) -> None:
        """Write the rows of held workspaces. Raises ``Conflict`` for one that this transaction does not hold."""
        for stored in changed:
            check_held(stored.state.workspace, self._writable)
        after = {stored.state.workspace: self._found_after(stored) for stored in changed}
        self._sql.upsert(
            workspaces,
            [workspace_row(one.stored, is_old=one.is_old, lease_until=one.lease_until) for one in after.values()],
        )
        self._save_registrations(after)
        self._save_leases(after)
        self._held |= after

    def _found_after(self, stored: StoredWorkspace) -> Found:
        """Return the row as it will be: in today's shape. A lease that an older version took in the row stays there.

        That version renews it there.
        """
        before = self._held.get(stored.state.workspace)
        lease_until = before.lease_until if before is not None and _same_cycle(before, stored) else None
        return Found(stored=stored, is_old=False, lease_until=lease_until)

    def _save_registrations(self, after: Mapping[str, Found]) -> None:
        """Write the registrations that changed, and the fleets of the cycles that run meanwhile."""
        moved = [one for name, one in after.items() if _is_registered_anew(self._held.get(name), one)]
        said = [row for one in moved if (row := registration_row(one.stored.state)) is not None]
        self._sql.upsert(registrations, said)
        for one in moved:
            state = one.stored.state
            if state.cycle is not None:
                fleet = sa.update(leases).where(leases.c.workspace == state.workspace)
                self._sql.run(fleet.values(fleet=fleet_of(state)))

    def _save_leases(self, after: Mapping[str, Found]) -> None:
        """Write the leases of cycles that start, and delete those of cycles that have ended."""
        given, ended = [], []
        for name, one in after.items():
            before, lease = self._held.get(name), one.stored.lease
            if _starts(before, one.stored) and lease is not None:
                given.append(lease_row(one.stored.state, lease))
            elif before is not None and _ends(before, one.stored) and before.lease_until is None:
                ended.append(name)
        self._sql.upsert(leases, given)
        if ended:
            self._sql.run(sa.delete(leases).where(leases.c.workspace.in_(ended)))

    def leases(self, names: Collection[str]) -> dict[str, Lease]:
        """Return the leases of those of these locked workspaces whose cycle is open, and lock them, in id order."""
        running = {name: one for name in sorted(names) if (one := self._held.get(name)) and one.stored.state.cycle}
        found: dict[str, Lease] = {}
        for name, one in running.items():
            lease = lease_in_row(one.stored.state, one.lease_until) if one.lease_until is not None else None
            found |= {} if lease is None else {name: lease}
        beside = [name for name in running if name not in found]
        if beside:
            wanted = sa.select(leases).where(leases.c.workspace.in_(beside)).order_by(leases.c.workspace)
            for row in self._sql.run(wanted.with_for_update()):
                found[row.workspace] = Lease(cycle=row.cycle, fence=row.fence, worker=row.worker, until=row.until)
        return found

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart's read model."""
        return lookups.restart(self._sql, restart)

    def save_restarts(self, records: Sequence[RestartProjection]) -> None:
        """Insert or replace read models."""
        self._sql.upsert(restarts, [rows.restart_row(record) for record in records])

    def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep states as they were right after events of this transaction; none costs nothing."""
        if snapshots:
            self._sql.run(sa.insert(workspace_snapshots), [rows.snapshot_row(snapshot) for snapshot in snapshots])

    def save_policy(self, layer: PolicyLayer) -> None:
        """Insert or replace a policy layer."""
        self._sql.upsert(policies, [rows.policy_row(layer)])

    def count_paths(self, workspace: str, from_position: int, to_position: int) -> int:
        """Count the distinct paths of the range's writes whose action is not ``record``."""
        counted = (
            sa.select(sa.func.count(events.c.subject.distinct()))
            .where(events.c.workspace == workspace, events.c.position.between(from_position, to_position))
            .where(IS_WRITE)
            .where(self._sql.json(events.c.data)["action"].as_string() != Action.RECORD.value)
        )
        return int(self._sql.run(counted).scalar_one())

    def running(self, fleet: str) -> Running:
        """Count the open cycles; exact, since every start holds the append lock."""
        in_rows = sa.select(workspaces.c.fleet).where(workspaces.c.lease_until.is_not(None))
        open_ones = sa.union_all(in_rows, sa.select(leases.c.fleet)).subquery()
        in_fleet = sa.func.count().filter(open_ones.c.fleet == fleet)
        total, of_fleet = self._sql.run(sa.select(sa.func.count(), in_fleet).select_from(open_ones)).one()
        return Running(total=total, in_fleet=of_fleet)

    def by_source(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Recorded]:
        """Return the events that were recorded for these (source, source_id)."""
        found: dict[tuple[str, str], Recorded] = {}
        for source in sorted({source for source, _ in keys}):
            ids = sorted(source_id for of, source_id in keys if of == source)
            for start in range(0, len(ids), _KEYS_AT_ONCE):
                some = events.c.source_id.in_(ids[start : start + _KEYS_AT_ONCE])
                result = self._sql.run(sa.select(events).where(events.c.source == source, some))
                found |= {(source, row["source_id"]): rows.event_of(row) for row in result.mappings()}
        return found

    def answer(self, actor: str, key: str) -> StoredAnswer | None:
        """Return what was answered to this actor's idempotency key, if it came before."""
        wanted = sa.select(idempotency_keys.c.fingerprint, idempotency_keys.c.answer).where(
            idempotency_keys.c.actor == actor, idempotency_keys.c.key == key
        )
        row = self._sql.run(wanted).one_or_none()
        return None if row is None else StoredAnswer(fingerprint=row[0], answer=row[1])

    def remember(self, actor: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer to an idempotency key. Raises ``Conflict`` if the key has one."""
        values = {"actor": actor, "key": key, "fingerprint": answer.fingerprint, "answer": answer.answer}
        self._sql.run(sa.insert(idempotency_keys), [{**values, "remembered_at": self.now}])

    def away(self) -> dict[Need, datetime]:
        """Return what nobody serves as the log says, at this instant."""
        return presence.read_away(self._sql)

    def save_away(self, came: Sequence[tuple[Need, datetime, int]], went: Sequence[Need]) -> None:
        """Keep what is away from now on, and drop what is back."""
        presence.save_away(self._sql, came, went)

    def last_clock_regression_at(self) -> datetime | None:
        """Return ``recorded_at`` of the newest ``ClockRegressed``."""
        newest = (
            sa.select(events.c.recorded_at)
            .where(events.c.type == "ClockRegressed", NOT_A_WRITE)
            .order_by(events.c.position.desc())
            .limit(1)
        )
        at: datetime | None = self._sql.run(newest).scalar_one_or_none()
        return at


def _same_cycle(before: Found, after: StoredWorkspace) -> bool:
    earlier, now = before.stored.state.cycle, after.state.cycle
    return earlier is not None and now is not None and earlier.id == now.id


def _ends(before: Found, after: StoredWorkspace) -> bool:
    return before.stored.state.cycle is not None and not _same_cycle(before, after)


def _starts(before: Found | None, after: StoredWorkspace) -> bool:
    return after.state.cycle is not None and not (before is not None and _same_cycle(before, after))


def _is_registered_anew(before: Found | None, after: Found) -> bool:
    if before is not None and before.is_old:
        return True
    position = before.stored.state.registration_position if before else 0
    return after.stored.state.registration_position != position


def check_held(workspace: str, writable: Collection[str]) -> None:
    """Raise ``Conflict`` for a row that a transaction wants to write but did not lock: a lost update otherwise."""
    if workspace not in writable:
        raise Conflict(f"workspace {workspace!r} is not held by this transaction; name it in write()")
