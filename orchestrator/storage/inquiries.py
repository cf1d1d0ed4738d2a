"""``Inquiries`` on a SQL database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from orchestrator.domain.snapshot import Snapshot
from orchestrator.inquiries import Place
from orchestrator.storage import rows
from orchestrator.storage.database_time import DatabaseTime
from orchestrator.storage.schema import events, workspace_snapshots, workspaces
from orchestrator.storage.statements import Statements


class SqlInquiries:
    """``Inquiries`` over ``Statements``."""

    def __init__(self, sql: Statements, time: DatabaseTime) -> None:
        self._sql = sql
        self._time = time

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        now, position = self._sql.run(sa.select(self._time.store_time(), last_by(at))).one()
        return Place(now=now, position=position or 0)

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
        found = sa.select(workspace_snapshots).select_from(workspaces.join(workspace_snapshots, mine))
        result = self._sql.run(found.where(workspaces.c.id.in_(sorted(of)))).mappings()
        return {row["workspace"]: rows.snapshot_of(row) for row in result}

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        position = workspace_snapshots.c.position
        found = sa.select(workspace_snapshots).where(position.between(first, last)).order_by(position)
        return [rows.snapshot_of(row) for row in self._sql.run(found).mappings()]


def last_by(at: datetime) -> sa.ScalarSelect[int]:
    """Return the newest position recorded at that instant or before; NULL if there is none."""
    by_then = sa.select(events.c.position).where(events.c.recorded_at <= at)
    # Both columns: the events of one transaction share an instant, and the index holds no position.
    return by_then.order_by(events.c.recorded_at.desc(), events.c.position.desc()).limit(1).scalar_subquery()
