"""``Inquiries`` on a SQL database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from orchestrator.domain.events import Recorded
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.snapshot import Snapshot
from orchestrator.ports.inquiries import FileWrites, PastEvent, Place, RestartSum, Scope, Waits
from orchestrator.ports.sums import Activity, Of, SumKind, SumsToAdd
from orchestrator.storage.sql import failure_events, file_writes, kept_sums, restart_sums, rows
from orchestrator.storage.sql.database_time import DatabaseTime
from orchestrator.storage.sql.log_spans import last_by
from orchestrator.storage.sql.schema import IS_POLICY_CHANGE, NOT_A_WRITE, events, workspace_snapshots, workspaces
from orchestrator.storage.sql.statements import ONE, Statements
from orchestrator.storage.sql.sums_to_add import sums_to_add

_PAST = [events.c[name] for name in rows.PAST]
_registering = events.alias("registering")
_REGISTERED_BY = _registering.c.data.label(rows.REGISTERED_BY)


class SqlInquiries:
    """``Inquiries`` and ``Sums`` over ``Statements``."""

    def __init__(self, sql: Statements, time: DatabaseTime) -> None:
        self._sql = sql
        self._time = time

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        now, position = self._sql.run(sa.select(self._time.store_time(), last_by(at))).one()
        return Place(now=now, position=position or 0)

    def snapshot_by(self, workspace: str, at: datetime) -> tuple[Place, Snapshot | None]:
        """Return where an instant lies in the log, and the workspace's newest snapshot of then or before."""
        place = sa.select(last_by(at).label("place")).cte("place").prefix_with("MATERIALIZED", dialect="postgresql")
        kept, earlier = workspace_snapshots, workspace_snapshots.alias()
        newest = (
            sa.select(earlier.c.position)
            .where(earlier.c.workspace == workspace, earlier.c.position <= place.c.place)
            .order_by(earlier.c.position.desc())
            .limit(ONE)
            .correlate(place)
            .scalar_subquery()
        )
        mine = (kept.c.workspace == workspace) & (kept.c.position == newest)
        now = self._time.store_time().label("now")
        found = sa.select(now, place.c.place, kept.c.workspace, kept.c.position, kept.c.state, _REGISTERED_BY)
        joined = place.outerjoin(kept, mine).outerjoin(_registering, self._registered_by)
        row = self._sql.run(found.select_from(joined)).mappings().one()
        snapshot = None if row["state"] is None else rows.snapshot_of(row)
        return Place(now=row["now"], position=row["place"] or 0), snapshot

    def past_events(self, workspace: str | None, *, after: int, to_position: int, limit: int) -> list[PastEvent]:
        """Return a workspace's events after ``after``, and all changes of policies from the log's beginning on."""
        position = events.c.position
        changes = sa.select(*_PAST).where(IS_POLICY_CHANGE, NOT_A_WRITE)
        branches = [changes.where(position <= to_position)]
        if workspace is not None:
            mine = sa.select(*_PAST).where(events.c.workspace == workspace, position > after, position <= to_position)
            branches.append(mine.order_by(position).limit(limit))
        both = sa.union_all(*(sa.select(branch.subquery()) for branch in branches))
        return sorted(map(rows.past_event_of, self._sql.run(both)), key=lambda event: event.position)

    def snapshots(self, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
        """Return each workspace's newest snapshot at or before that position: two index probes a workspace."""
        earlier = workspace_snapshots.alias()
        newest = (
            sa.select(sa.func.max(earlier.c.position))
            .where(earlier.c.workspace == workspaces.c.id, earlier.c.position <= to_position)
            .correlate(workspaces)
            .scalar_subquery()
        )
        mine = (workspace_snapshots.c.workspace == workspaces.c.id) & (workspace_snapshots.c.position == newest)
        joined = workspaces.join(workspace_snapshots, mine).outerjoin(_registering, self._registered_by)
        found = sa.select(workspace_snapshots, _REGISTERED_BY).select_from(joined)
        result = self._sql.run(found.where(workspaces.c.id.in_(sorted(of)))).mappings()
        return {row["workspace"]: rows.snapshot_of(row) for row in result}

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        position = workspace_snapshots.c.position
        joined = workspace_snapshots.outerjoin(_registering, self._registered_by)
        found = sa.select(workspace_snapshots, _REGISTERED_BY).select_from(joined)
        found = found.where(position.between(first, last)).order_by(position)
        return [rows.snapshot_of(row) for row in self._sql.run(found).mappings()]

    @property
    def _registered_by(self) -> sa.ColumnElement[bool]:
        """The event that a snapshot's state says it was registered by; none for the shape of revision 0002."""
        state = self._sql.json(workspace_snapshots.c.state)
        named: sa.ColumnElement[int] = state["registration_position"].as_integer()
        return _registering.c.position == named

    def restart_sums(self, scope: Scope, *, most: int) -> list[RestartSum]:
        """Return the sums over the newest ``most`` restarts in scope."""
        return restart_sums.restart_sums(self._sql, scope, most)

    def waits(self, scope: Scope, *, most: int) -> Waits:
        """Return the waits of those of the newest ``most`` restarts in scope that succeeded."""
        return restart_sums.waits(self._sql, scope, most)

    def storms(self, scope: Scope, *, limit: int, most: int) -> list[RestartProjection]:
        """Return the restarts with the most writes, most first; with a span, of the newest ``most`` in it."""
        return restart_sums.storms(self._sql, scope, limit, most)

    def failure_counts(self, scope: Scope, *, most: int) -> dict[tuple[str, str | None], int]:
        """Return how often each type of failure came, by type and error kind or reason."""
        return failure_events.failure_counts(self._sql, scope, most)

    def failures(self, scope: Scope, *, limit: int) -> list[Recorded]:
        """Return the newest failures in scope, newest first."""
        return failure_events.failures(self._sql, scope, limit)

    def sums_to_add(self, most: int) -> SumsToAdd | None:
        """Return what the next ``most`` positions add to the kept sums; None: nothing came since."""
        return sums_to_add(self._sql, most)

    def sums_position(self) -> int | None:
        """Return the position that the sums are kept for; None: too much came after it for a question to add."""
        return kept_sums.near_position(self._sql)

    def kept_restart_sums(self, scope: Scope, *, after: int) -> list[RestartSum]:
        """Return the sums over all restarts in scope, which names no workspace."""
        return kept_sums.kept_restart_sums(self._sql, scope, after)

    def kept_failure_counts(self, scope: Scope, *, after: int) -> dict[tuple[str, str | None], int]:
        """Return how often each type of failure came in such a scope, by type and error kind or reason."""
        return kept_sums.kept_failure_counts(self._sql, scope, after)

    def activity(
        self, kind: SumKind, since: datetime, *, name: str | None = None
    ) -> Sequence[tuple[Of, datetime, Activity]]:
        """Return what is kept of each five minutes that began then or later, in their order."""
        return kept_sums.activity(self._sql, kind, since, name)

    def written(
        self, scope: Scope, *, after: int = 0, to_position: int | None = None, most: int, limit: int | None = None
    ) -> list[FileWrites]:
        """Return the files written after position ``after``, most writes first; the newest ``most`` writes count."""
        return file_writes.written(self._sql, scope, after=after, to_position=to_position, most=most, limit=limit)

    def kept_files(self, scope: Scope, *, limit: int) -> list[FileWrites]:
        """Return the files with the most writes as they are kept, most first."""
        return file_writes.kept_files(self._sql, scope, limit)

    def kept_counts(self, files: Collection[tuple[str, str]]) -> list[FileWrites]:
        """Return what is kept of these files, given as (workspace, path)."""
        return file_writes.kept_counts(self._sql, files)
