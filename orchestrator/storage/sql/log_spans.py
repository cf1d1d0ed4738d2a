"""Spans of time and fleets as conditions on the log's positions, which its indexes are ordered by."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.ports.inquiries import Scope
from orchestrator.storage.sql.schema import events, workspaces
from orchestrator.storage.sql.statements import ONE

Page = sa.Select[*tuple[Any, ...]]


def last_by(at: datetime, *, inclusive: bool = True) -> sa.ScalarSelect[int]:
    """Return the newest position recorded at that instant or before (exclusive: before); NULL if there is none."""
    found = events.alias()
    by_then = found.c.recorded_at <= at if inclusive else found.c.recorded_at < at
    # Both columns: the events of one transaction share an instant, and the index holds no position.
    newest = sa.select(found.c.position).where(by_then).order_by(found.c.recorded_at.desc(), found.c.position.desc())
    return newest.limit(ONE).scalar_subquery()


def recorded_between(since: datetime | None, until: datetime | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on ``position`` that say: recorded then or later, and before."""
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(events.c.position > sa.func.coalesce(last_by(since, inclusive=False), 0))
    if until is not None:
        conditions.append(events.c.position <= last_by(until, inclusive=False))
    return conditions


def of_fleet(chosen: Page, scope: Scope) -> Page:
    """Keep the events of workspaces that are now in the scope's fleet."""
    if scope.fleet is None:
        return chosen
    return chosen.where(events.c.workspace.in_(sa.select(workspaces.c.id).where(workspaces.c.fleet == scope.fleet)))
