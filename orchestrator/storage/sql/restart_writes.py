"""The writes of one restart's range, in pages of one statement."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.domain.events import Recorded
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.storage.sql import rows
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.path_counts import counted, last_before
from orchestrator.storage.sql.schema import events
from orchestrator.storage.sql.statements import Statements


def restart_writes(sql: Statements, record: RestartProjection, *, after: int, limit: int) -> list[Recorded]:
    """Return those after a position that ask for something. A range may begin with any number of writes that do not:
    what was recorded before its window opened is stepped over.
    """
    greatest = sa.func.max if sql.dialect == "sqlite" else sa.func.greatest
    before = sa.literal(max(after, record.from_position - 1), sa.BigInteger())
    opened = last_before(sa.literal(record.opened_at, Instant()))
    page = sa.select(events).where(events.c.workspace == record.workspace, *counted(sql.dialect))
    page = page.where(events.c.position > greatest(before, opened), events.c.position <= record.to_position)
    found = sql.run(page.order_by(events.c.position).limit(limit)).mappings()
    return [rows.event_of(row) for row in found]
