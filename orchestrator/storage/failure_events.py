"""Failed and abandoned cycles and give-ups, found along indexes that hold little else."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.domain.events import CycleAbandoned, CycleFailed, Recorded, RestartGaveUp
from orchestrator.inquiries import Scope
from orchestrator.storage import rows
from orchestrator.storage.log_spans import of_fleet, recorded_between
from orchestrator.storage.schema import IS_FAILURE, NOT_A_WRITE, events
from orchestrator.storage.statements import Statements

_TYPES = tuple(kind.type_name() for kind in (CycleFailed, CycleAbandoned, RestartGaveUp))


def failure_counts(sql: Statements, scope: Scope, most: int) -> dict[tuple[str, str | None], int]:
    """Return how often each type of failure came, by type and error kind or reason."""
    data = sql.json(events.c.data)
    kind = sa.func.coalesce(data["error_kind"].as_string(), data["reason"].as_string()).label("kind")
    each = sa.select(events.c.type, kind).where(events.c.position.in_(_positions(scope, most))).subquery().c
    counted = sa.select(each.type, each.kind, sa.func.count()).group_by(each.type, each.kind)
    return {(name, kind): count for name, kind, count in sql.run(counted)}


def failures(sql: Statements, scope: Scope, limit: int) -> list[Recorded]:
    """Return the newest failures in scope, newest first."""
    newest = sa.select(events).where(events.c.position.in_(_positions(scope, limit)))
    found = newest.order_by(events.c.position.desc()).limit(limit)
    return [rows.event_of(row) for row in sql.run(found).mappings()]


def _positions(scope: Scope, most: int) -> sa.Select[int]:
    """Return the positions of the newest ``most`` failures; where no workspace is named, of each type."""
    inside = of_fleet(sa.select(events.c.position), scope).where(*recorded_between(scope.since, scope.until))
    if scope.workspace is not None:
        branches = [inside.where(events.c.workspace == scope.workspace, IS_FAILURE)]
    else:
        branches = [inside.where(events.c.type == name, NOT_A_WRITE) for name in _TYPES]
    newest = [one.order_by(events.c.position.desc()).limit(most).subquery() for one in branches]
    merged = sa.union_all(*(sa.select(one.c.position) for one in newest)).subquery()
    return sa.select(merged.c.position)
