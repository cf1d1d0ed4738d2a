"""Pages of restart history, newest first: few statements, whatever the filters and however deep the page.

``workspace``, ``fleet``, ``state`` and ``cause`` are ranges of indexes by ``queued_position``. ``queued_at`` rises with
``queued_position``, so that since and until are bounds of it too. For a path: ``restarts_of_path``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.events import Cause
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.ports.store import RestartFilter
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.index_ranges import limit_of, merged
from orchestrator.storage.sql.schema import restarts
from orchestrator.storage.sql.statements import ONE, Statements

Page = sa.Select[*tuple[Any, ...]]

_BEYOND = 2**63 - 1


def restart_page(
    sql: Statements, wanted: RestartFilter, *conditions: sa.ColumnElement[bool]
) -> list[RestartProjection]:
    """Return a page of the restarts for which the filter, but for its path, and the conditions hold."""
    found = lookups.restart_projections(sql, _page(wanted, conditions))
    return found[: wanted.limit]


def _page(wanted: RestartFilter, conditions: Sequence[sa.ColumnElement[bool]]) -> Page:
    order = _order(wanted, restarts.c.queued_position)
    if wanted.state is None and wanted.cause is None:
        chosen = sa.select(restarts).where(*filtered(wanted), *conditions)
        return chosen.order_by(order).limit(limit_of(wanted.limit))
    first = first_wanted(wanted, wanted.limit, conditions)
    return sa.select(restarts).join(first, first.c.id == restarts.c.id).order_by(order)


def first_wanted(wanted: RestartFilter, most: int, conditions: Sequence[sa.ColumnElement[bool]] = ()) -> sa.Subquery:
    """Return ``id`` and ``queued_position`` of the first ``most`` restarts of the filter, or a few more.

    Of an index by state, cause and position one range each: of the given ones, or of all that there are.
    """
    columns = (restarts.c.id, restarts.c.queued_position)
    limit = limit_of(most)
    ranges = [
        sa.select(*columns)
        .where(*filtered(wanted), *conditions, *kind)
        .order_by(_order(wanted, restarts.c.queued_position))
        .limit(limit)
        for kind in _kinds(wanted)
    ]
    every = merged(ranges)
    first = sa.select(every.c.id, every.c.queued_position)
    return first.order_by(_order(wanted, every.c.queued_position)).limit(limit).subquery("first")


def _kinds(wanted: RestartFilter) -> list[tuple[sa.ColumnElement[bool], ...]]:
    if wanted.state is None and wanted.cause is None:
        return [()]
    states = list(RestartState) if wanted.state is None else [wanted.state]
    causes = list(Cause) if wanted.cause is None else [wanted.cause]
    return [(restarts.c.state == state.value, restarts.c.cause == cause.value) for state in states for cause in causes]


def _order(wanted: RestartFilter, position: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return position.asc() if wanted.after is not None else position.desc()


def filtered(wanted: RestartFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the filter but for its state, cause and path."""
    conditions = queued_between(wanted.since, wanted.until)
    for column, value in ((restarts.c.workspace, wanted.workspace), (restarts.c.fleet, wanted.fleet)):
        if value is not None:
            conditions.append(column == value)
    if wanted.before is not None:
        conditions.append(restarts.c.queued_position < wanted.before)
    if wanted.after is not None:
        conditions.append(restarts.c.queued_position > wanted.after)
    return conditions


def queued_between(since: datetime | None, until: datetime | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on ``queued_position`` that say: queued then or later, and before."""
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(restarts.c.queued_position >= first_queued_from(since))
    if until is not None:
        conditions.append(restarts.c.queued_position < sa.func.coalesce(first_queued_from(until), _BEYOND))
    return conditions


def first_queued_from(at: datetime) -> sa.ScalarSelect[int]:
    """Return the position at which the first restart of that instant or later was queued; NULL: none was."""
    later = restarts.alias()
    first = sa.select(later.c.queued_position).where(later.c.queued_at >= at)
    return first.order_by(later.c.queued_at, later.c.queued_position).limit(ONE).scalar_subquery()
