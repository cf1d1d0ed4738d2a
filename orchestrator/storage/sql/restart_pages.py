"""Pages of restart history, newest first, whose cost does not grow with their depth.

Every filter but ``cause`` is an index range by ``queued_position``. ``queued_at`` rises with ``queued_position``, so
that since and until are bounds of it too. With a path the writes come first: a path's newest write names the
range that holds it, and the next one looked for lies before that range, so each hit costs three index probes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.ports.store import RestartFilter
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.schema import IS_WRITE, PREFIX_CHARACTERS, events, path_prefix, restarts
from orchestrator.storage.sql.statements import ONE, Statements

Page = sa.Select[*tuple[Any, ...]]

FEW_WORKSPACES = 50
"""A path in more workspaces than that is common: restarts are then looked through newest first, one probe each."""

_BEYOND = 2**63 - 1


def restart_page(sql: Statements, wanted: RestartFilter) -> list[RestartProjection]:
    """Return a page of restart history."""
    if wanted.path is None or wanted.after is not None:
        return _read(sql, wanted, _filtered(wanted))
    if wanted.workspace is not None:
        return _page_by_path(sql, wanted, wanted.path, wanted.workspace)
    holders = _workspaces_with(sql, wanted.path)
    if len(holders) > FEW_WORKSPACES:
        return _read(sql, wanted, _filtered(wanted))
    found = [
        record
        for workspace in holders
        for record in _page_by_path(sql, replace(wanted, workspace=workspace), wanted.path, workspace)
    ]
    return sorted(found, key=lambda record: -record.queued_position)[: wanted.limit]


def queued_between(since: datetime | None, until: datetime | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on ``queued_position`` that say: queued then or later, and before."""
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(restarts.c.queued_position >= _first_queued_from(since))
    if until is not None:
        conditions.append(restarts.c.queued_position < sa.func.coalesce(_first_queued_from(until), _BEYOND))
    return conditions


def _first_queued_from(at: datetime) -> sa.ScalarSelect[int]:
    """Return the position at which the first restart of that instant or later was queued; NULL: none was."""
    later = restarts.alias()
    first = sa.select(later.c.queued_position).where(later.c.queued_at >= at)
    return first.order_by(later.c.queued_at, later.c.queued_position).limit(ONE).scalar_subquery()


def _read(sql: Statements, wanted: RestartFilter, page: Page) -> list[RestartProjection]:
    ascending = wanted.after is not None
    order = restarts.c.queued_position.asc() if ascending else restarts.c.queued_position.desc()
    return lookups.restart_projections(sql, page.order_by(order).limit(wanted.limit))


def _filtered(wanted: RestartFilter) -> Page:
    return sa.select(restarts).where(*_conditions(wanted))


def _conditions(wanted: RestartFilter) -> list[sa.ColumnElement[bool]]:
    conditions = queued_between(wanted.since, wanted.until)
    for column, value in (
        (restarts.c.workspace, wanted.workspace),
        (restarts.c.fleet, wanted.fleet),
        (restarts.c.state, wanted.state),
        (restarts.c.cause, wanted.cause),
    ):
        if value is not None:
            conditions.append(column == str(value))
    if wanted.before is not None:
        conditions.append(restarts.c.queued_position < wanted.before)
    if wanted.after is not None:
        conditions.append(restarts.c.queued_position > wanted.after)
    if wanted.path is not None:
        conditions.append(_holds(wanted.path))
    return conditions


def _writes(path: str) -> sa.ColumnElement[bool]:
    """Return the condition that an event is a write of this path, in the words of the index over paths."""
    same = sa.and_(IS_WRITE, path_prefix == path[:PREFIX_CHARACTERS])
    if len(path) < PREFIX_CHARACTERS:
        return same
    # The rest, not the whole: SQLite would put an equal whole into the prefix, and see no index any more.
    return sa.and_(same, sa.func.substr(events.c.subject, PREFIX_CHARACTERS + 1) == path[PREFIX_CHARACTERS:])


def _page_by_path(sql: Statements, wanted: RestartFilter, path: str, workspace: str) -> list[RestartProjection]:
    """Return a page of one workspace's restarts whose ranges hold a write of ``path``."""
    found: list[RestartProjection] = []
    start: sa.ScalarSelect[int] | int = _end_of_newest(wanted, workspace)
    while True:
        # Not ordered by the database: SQLite would read the whole workspace along the order it is asked for.
        rows = sql.fetch(_in_ranges(sql, wanted, _ranges(start, path, workspace, wanted.limit), path))
        page = [lookups.restart_of(sql, row) for _, restart, *row in rows if restart is not None]
        newest_first = sorted(page, key=lambda record: -record.queued_position)
        found += newest_first[: wanted.limit - len(found)]
        reached = {row[0] for row in rows}
        if len(found) == wanted.limit or len(reached) < wanted.limit:
            return found
        start = min(reached)


def _in_ranges(sql: Statements, wanted: RestartFilter, ranges: sa.CTE, path: str) -> Page:
    """Return the statement for the wanted restarts of these ranges that hold a write of ``path``.

    Its rows: where the range begins, the restart's id (NULL: none of the range is wanted), its columns.
    Of the restarts of one range the last holds all of its writes; each one before it gave up, and is looked into.
    """
    conditions = _conditions(replace(wanted, path=None))
    holds = sa.or_(restarts.c.state != RestartState.GAVE_UP.value, _holds(path))
    mine = sa.and_(restarts.c.from_position == ranges.c.first, holds, *conditions)
    held = sa.select(ranges.c.first, restarts.c.id, *lookups.restart_columns(sql.dialect))
    found = sa.and_(ranges.c.count > 0, ranges.c.first.is_not(None))
    return held.select_from(ranges.outerjoin(restarts, mine)).where(found)


def _holds(path: str) -> sa.ColumnElement[bool]:
    """Return the condition that a write of ``path`` is in a restart's range."""
    inside = events.c.position.between(restarts.c.from_position, restarts.c.to_position)
    return sa.exists().where(_writes(path), events.c.workspace == restarts.c.workspace, inside).correlate(restarts)


def _end_of_newest(wanted: RestartFilter, workspace: str) -> sa.ScalarSelect[int]:
    """Return the position after the range of the newest restart that the page may hold; NULL: there is none."""
    bound = replace(wanted, workspace=workspace, fleet=None, state=None, cause=None, path=None)
    newest = _filtered(bound).with_only_columns(restarts.c.to_position + 1)
    return newest.order_by(restarts.c.queued_position.desc()).limit(ONE).scalar_subquery()


def _ranges(start: sa.ScalarSelect[int] | int, path: str, workspace: str, most: int) -> sa.CTE:
    """Return up to ``most`` ranges before ``start`` that hold a write of the path, newest first; row 0 is the start.

    Restarts that hold the same write begin at the same position: only what settles a range moves the next one's
    beginning. A write that no restart ever held (waived in its window) counts as a range of its own.
    """
    first = sa.select(sa.type_coerce(start, sa.BigInteger).label("first"), sa.literal(0).label("count"))
    reached = first.cte("reached", recursive=True)
    holder = (
        sa.select(restarts.c.from_position)
        .where(restarts.c.workspace == workspace, restarts.c.to_position >= events.c.position)
        .order_by(restarts.c.to_position)
        .limit(ONE)
        .correlate(events)
        .scalar_subquery()
    )
    newest = (
        sa.select(events.c.position.label("position"), holder.label("first"))
        .where(_writes(path), events.c.workspace == workspace, events.c.position < reached.c.first)
        .order_by(events.c.position.desc())
        .limit(ONE)
        .correlate(reached)
        .subquery("newest")
    )
    held = (newest.c.first <= newest.c.position, newest.c.first)
    following = sa.select(sa.case(held, else_=newest.c.position)).correlate(reached).scalar_subquery()
    more = sa.select(following, reached.c.count + 1).where(reached.c.first.is_not(None), reached.c.count < most)
    return reached.union_all(more)


def _workspaces_with(sql: Statements, path: str) -> list[str]:
    """Return the workspaces in which ``path`` was written, one index probe each; all, or more than the few."""
    next_one = sa.select(events.c.workspace).where(_writes(path)).order_by(events.c.workspace).limit(ONE)
    first = sa.select(next_one.scalar_subquery().label("workspace"), sa.literal(0).label("count"))
    found = first.cte("found", recursive=True)
    later = next_one.where(events.c.workspace > found.c.workspace).correlate(found).scalar_subquery()
    more = sa.select(later, found.c.count + 1).where(found.c.workspace.is_not(None), found.c.count < FEW_WORKSPACES)
    found = found.union_all(more)
    return list(sql.run(sa.select(found.c.workspace).where(found.c.workspace.is_not(None))).scalars())
