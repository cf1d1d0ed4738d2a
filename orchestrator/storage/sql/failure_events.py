"""Failed and abandoned cycles and give-ups, found along indexes that hold little else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.events import CycleAbandoned, CycleFailed, Recorded, RestartGaveUp
from orchestrator.ports.inquiries import Scope
from orchestrator.storage.sql import rows
from orchestrator.storage.sql.log_spans import Page, recorded_between
from orchestrator.storage.sql.schema import IS_FAILURE, NOT_A_WRITE, events, restarts
from orchestrator.storage.sql.statements import Statements

_TYPES = tuple(kind.type_name() for kind in (CycleFailed, CycleAbandoned, RestartGaveUp))


def failure_counts(sql: Statements, scope: Scope, most: int) -> dict[tuple[str, str | None], int]:
    """Return how often each type of failure came, by type and error kind or reason."""
    return _counted(sql, _newest(scope, most, events.c.type, events.c.data).subquery())


def counted_in(
    sql: Statements, scope: Scope, spans: Sequence[Sequence[sa.ColumnElement[bool]]]
) -> dict[tuple[str, str | None], int]:
    """Return how often each type of failure came in some stretches of the log, given as conditions, which are short."""
    chosen = _of_fleet(sa.select(events.c.type, events.c.data), scope)
    branches = [
        chosen.where(sa.literal_column(f"type = '{name}'"), NOT_A_WRITE, *span) for span in spans for name in _TYPES
    ]
    return _counted(sql, sa.union_all(*branches).subquery()) if branches else {}


def _counted(sql: Statements, chosen: sa.Subquery) -> dict[tuple[str, str | None], int]:
    each = chosen.c
    data = sql.json(each.data)
    kind = sa.func.coalesce(data["error_kind"].as_string(), data["reason"].as_string()).label("kind")
    kinds = sa.select(each.type, kind).subquery().c
    counted = sa.select(kinds.type, kinds.kind, sa.func.count()).group_by(kinds.type, kinds.kind)
    return {(name, kind): count for name, kind, count in sql.run(counted)}


def failures(sql: Statements, scope: Scope, limit: int) -> list[Recorded]:
    """Return the newest failures in scope, newest first."""
    found = [rows.event_of(row) for row in sql.run(_newest(scope, limit, *events.c)).mappings()]
    return sorted(found, key=lambda event: -event.position)[:limit]


def _newest(scope: Scope, most: int, *columns: sa.ColumnElement[Any]) -> sa.Select[*tuple[Any, ...]]:
    """Return columns of the newest ``most`` failures; where no workspace is named, of each type."""
    inside = _of_fleet(sa.select(*columns), scope).where(*recorded_between(scope.since, scope.until))
    if scope.workspace is not None:
        mine = inside.where(events.c.workspace == scope.workspace, IS_FAILURE)
        return mine.order_by(events.c.position.desc()).limit(most)
    branches = [
        inside.where(events.c.type == name, NOT_A_WRITE).order_by(events.c.position.desc()).limit(most).subquery()
        for name in _TYPES
    ]
    return sa.select(sa.union_all(*(sa.select(branch) for branch in branches)).subquery())


def _of_fleet(chosen: Page, scope: Scope) -> Page:
    """Keep the failures of restarts that were queued in the scope's fleet: the subject of each is its restart."""
    if scope.fleet is None:
        return chosen
    of_restart = (restarts.c.id == events.c.subject) & (restarts.c.fleet == scope.fleet)
    return chosen.where(sa.exists().where(of_restart))
