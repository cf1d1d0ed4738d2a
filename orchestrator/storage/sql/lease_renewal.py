"""Renewing all leases of a process in one statement, which passes over the rows that other transactions hold.

A row that somebody holds for long, a stopped process or a person's session, must not cost other cycles their lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from orchestrator.ports.workspaces import Renewed
from orchestrator.storage.sql.column_types import ID, NUMBER, Instant
from orchestrator.storage.sql.database_time import DatabaseTime
from orchestrator.storage.sql.schema import leases, workspaces
from orchestrator.storage.sql.statements import Statements


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where leases lie: the columns of a table that say whose, under which fence, and until when."""

    workspace: sa.Column[Any]
    fence: sa.Column[Any]
    until: sa.Column[Any]

    @property
    def table(self) -> sa.Table:
        """Return the table."""
        return self.workspace.table


BESIDE = Place(workspace=leases.c.workspace, fence=leases.c.fence, until=leases.c.until)
IN_ROWS = Place(workspace=workspaces.c.id, fence=workspaces.c.fence, until=workspaces.c.lease_until)
"""In the workspace's row, as all leases did in revision 0002."""


def renew(sql: Statements, time: DatabaseTime, place: Place, held: Mapping[str, tuple[int, int]]) -> Renewed:
    """Renew those of these leases, workspace -> (fence, lease in ms), that lie in that place."""
    now: datetime = sql.run(sa.select(time.store_time())).scalar_one()
    mine = sa.values(sa.column("workspace", ID), sa.column("fence", NUMBER), sa.column("until", Instant()), name="mine")
    rows = [(name, fence, now + timedelta(milliseconds=ms)) for name, (fence, ms) in sorted(held.items())]
    wanted = mine.data(rows).cte("mine")
    chosen = sa.select(place.workspace.label("workspace"), wanted.c.until).where(_is_mine(place, wanted))
    free = chosen.with_for_update(of=place.table, skip_locked=True).cte("free")
    renewal = sa.update(place.table).where(place.workspace == free.c.workspace).values({place.until: free.c.until})
    kept = set(sql.run(renewal.returning(place.workspace)).scalars())
    return Renewed(kept=kept, held_up=_there(sql, place, {name: held[name][0] for name in held.keys() - kept}))


def _is_mine(place: Place, wanted: sa.CTE) -> sa.ColumnElement[bool]:
    same = (place.workspace == wanted.c.workspace) & (place.fence == wanted.c.fence)
    return same & place.until.is_not(None)


def _there(sql: Statements, place: Place, fences: Mapping[str, int]) -> Collection[str]:
    """Return those whose row is there under that fence though it was not renewed: somebody holds it."""
    if not fences:
        return ()
    same = sa.tuple_(place.workspace, place.fence).in_(sorted(fences.items()))
    return set(sql.run(sa.select(place.workspace).where(same, place.until.is_not(None))).scalars())
