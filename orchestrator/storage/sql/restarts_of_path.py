"""Restarts whose ranges hold a write of a path, newest first: at most five statements a page, however long the history.

Looked for from both sides. From the other filters, if there are any: where few restarts pass them, or nearly all hold
the path, their newest ones are all that is needed. Else from the writes: a path's newest write names the range that
holds it, and the next one looked for lies before that range, so each range costs a few index probes; all within one
statement, which goes some ranges deep, and if that does not fill the page, deeper.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from orchestrator.domain.encoding import canonical_json
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.ports.store import RestartFilter
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.restart_pages import Page, filtered, first_queued_from, first_wanted, restart_page
from orchestrator.storage.sql.schema import IS_WRITE, PREFIX_CHARACTERS, events, path_prefix, restarts
from orchestrator.storage.sql.statements import ONE, Statements

FEW_WORKSPACES = 50
"""A path in more workspaces than that is common: restarts are then looked through newest first, one probe each."""

FEW_RESTARTS = 128
"""So many restarts that pass the other filters are looked at before the writes are."""

_DEEPER = 16
_ALL = 2**31 - 1
_ZERO = sa.cast(sa.literal_column("0"), sa.BigInteger())


def restarts_of_path(sql: Statements, wanted: RestartFilter, path: str) -> list[RestartProjection]:
    """Return a page of the restarts that the filter wants and whose ranges hold a write of ``path``."""
    if wanted.after is not None:
        return restart_page(sql, wanted, _holds(path))
    if replace(wanted, workspace=None, before=None, path=None, limit=1) != RestartFilter(limit=1):
        found, are_all = _among_first(sql, wanted, path)
        if are_all or len(found) >= wanted.limit:
            return found[: wanted.limit]
    holders = [wanted.workspace] if wanted.workspace is not None else _workspaces_with(sql, path)
    if len(holders) > FEW_WORKSPACES:
        return restart_page(sql, wanted, _holds(path))
    return _among_ranges(sql, wanted, path, holders) if holders else []


def _among_first(sql: Statements, wanted: RestartFilter, path: str) -> tuple[list[RestartProjection], bool]:
    """Return those of the first restarts of the other filters that hold the path, and whether there are no more."""
    first = first_wanted(wanted, FEW_RESTARTS)
    looked_at = sa.select(_holds(path), *lookups.restart_columns(sql)).join(first, first.c.id == restarts.c.id)
    rows = sql.fetch(looked_at.order_by(restarts.c.queued_position.desc()))
    return [lookups.restart_of(sql, row) for holds, *row in rows if holds], len(rows) < FEW_RESTARTS


@dataclass
class _Reached:
    """How far a workspace's ranges were gone through. ``queued``: by then, what is unread was queued before it."""

    ranges: int = 0
    queued: int = 0
    found: dict[str, RestartProjection] = field(default_factory=dict)


def _among_ranges(sql: Statements, wanted: RestartFilter, path: str, holders: Sequence[str]) -> list[RestartProjection]:
    """Go through the ranges that hold the path in each of the workspaces, until the page is full or there are none."""
    deep = 2 + max(wanted.limit, FEW_RESTARTS) // len(holders)
    for most in (deep, deep * _DEEPER, _ALL):
        reached = _reached(sql, _in_ranges(sql, wanted, _ranges(sql, wanted, path, holders, most), path))
        found = sorted(
            (record for one in reached for record in one.found.values()), key=lambda record: -record.queued_position
        )
        bound = max((one.queued for one in reached if one.ranges >= most), default=0)
        if bound == 0 or sum(record.queued_position >= bound for record in found) >= wanted.limit:
            break
    return found[: wanted.limit]


def _reached(sql: Statements, ranges: Page) -> Collection[_Reached]:
    reached: dict[str, _Reached] = {}
    for workspace, count, queued, restart, *row in sql.fetch(ranges):
        one = reached.setdefault(workspace, _Reached(queued=queued))
        one.ranges, one.queued = max(one.ranges, count), min(one.queued, queued)
        if restart is not None:
            one.found[restart] = lookups.restart_of(sql, row)
    return reached.values()


def _in_ranges(sql: Statements, wanted: RestartFilter, ranges: sa.CTE, path: str) -> Page:
    """Return the statement for the wanted restarts of these ranges that hold a write of ``path``.

    Its rows: the workspace, how many ranges it is deep, where that one was queued, the restart's id (NULL: none of the
    range is wanted), its columns. Not ordered by the database: SQLite would read the whole workspace along the order.
    """
    conditions = filtered(wanted)
    if wanted.state is not None:
        conditions.append(restarts.c.state == wanted.state.value)
    if wanted.cause is not None:
        conditions.append(restarts.c.cause == wanted.cause.value)
    same = sa.and_(restarts.c.workspace == ranges.c.workspace, restarts.c.from_position == ranges.c.first)
    mine = sa.and_(same, _holds(path), *conditions)
    held = sa.select(ranges.c.workspace, ranges.c.count, ranges.c.queued, restarts.c.id, *lookups.restart_columns(sql))
    return held.select_from(ranges.outerjoin(restarts, mine)).where(ranges.c.count > 0)


def _ranges(sql: Statements, wanted: RestartFilter, path: str, holders: Iterable[str], most: int) -> sa.CTE:
    """Return up to ``most`` ranges of each workspace that hold a write of the path, newest first; row 0 is the start.

    Restarts that hold the same write begin at the same position: only what settles a range moves the next one's
    beginning. A write that no restart ever held (waived in its window) counts as a range of its own.
    """
    workspace = _each(sql, holders)
    start = _end_of_newest(wanted, workspace).label("first"), _floor(wanted, workspace).label("floor")
    seeds: Page = sa.select(
        workspace.label("workspace"), *start, sa.literal_column("0").label("count"), _ZERO.label("queued")
    )
    reached = seeds.cte("reached", recursive=True)
    newest = (
        sa.select(events.c.position)
        .where(_writes(path), events.c.workspace == reached.c.workspace, events.c.position < reached.c.first)
        .order_by(events.c.position.desc())
        .limit(ONE)
        .correlate(reached)
        .scalar_subquery()
    )
    ends = restarts.alias("ends")
    first_ending = (
        sa.select(ends.c.id)
        .where(ends.c.workspace == reached.c.workspace, ends.c.to_position >= newest)
        .order_by(ends.c.to_position)
        .limit(ONE)
        .correlate(reached)
        .scalar_subquery()
    )
    holder = restarts.alias("holder")
    begin = sa.case((holder.c.from_position < reached.c.first, holder.c.from_position), else_=newest)
    following = sa.select(
        reached.c.workspace, begin, reached.c.floor, reached.c.count + 1, holder.c.queued_position
    ).select_from(reached.join(holder, holder.c.id == first_ending))
    goes_on = sa.and_(reached.c.count < sa.literal_column(str(most)), reached.c.first > reached.c.floor)
    return reached.union_all(following.where(goes_on))


def _each(sql: Statements, names: Iterable[str]) -> sa.ColumnElement[str]:
    """Return the column of a table that holds these names."""
    listed = canonical_json(list(names))
    if sql.dialect == "sqlite":
        return sa.func.json_each(listed).table_valued("value", name="named").c.value
    each = sa.func.json_array_elements_text(sa.cast(sa.literal(listed, sa.Text()), postgresql.JSON)).table_valued("value", name="named")
    return sa.collate(each.c.value, "C")


def _end_of_newest(wanted: RestartFilter, workspace: sa.ColumnElement[str]) -> sa.ScalarSelect[int]:
    """Return the position after the range of a workspace's newest restart that the page may hold; NULL: none."""
    bound = filtered(replace(wanted, workspace=None, fleet=None, since=None))
    newest = sa.select(restarts.c.to_position + 1).where(restarts.c.workspace == workspace, *bound)
    newest = newest.select_from(restarts).order_by(restarts.c.queued_position.desc()).limit(ONE)
    return newest.correlate_except(restarts).scalar_subquery()


def _floor(wanted: RestartFilter, workspace: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    """Return where the ranges begin of which a restart was queued at ``since`` or later; 0 without it."""
    if wanted.since is None:
        return _ZERO
    since = restarts.c.queued_position >= first_queued_from(wanted.since)
    oldest = sa.select(restarts.c.from_position).where(restarts.c.workspace == workspace, since)
    oldest = oldest.select_from(restarts).order_by(restarts.c.queued_position).limit(ONE)
    return oldest.correlate_except(restarts).scalar_subquery()


def _writes(path: str) -> sa.ColumnElement[bool]:
    """Return the condition that an event is a write of this path, in the words of the index over paths."""
    same = sa.and_(IS_WRITE, path_prefix == path[:PREFIX_CHARACTERS])
    if len(path) < PREFIX_CHARACTERS:
        return same
    # The rest, not the whole: SQLite would put an equal whole into the prefix, and see no index any more.
    return sa.and_(same, sa.func.substr(events.c.subject, PREFIX_CHARACTERS + 1) == path[PREFIX_CHARACTERS:])


def _holds(path: str) -> sa.ColumnElement[bool]:
    """Return the condition that a write of ``path`` is in a restart's range: a probe of the index for each restart.

    Not EXISTS: PostgreSQL would join all writes of the path there are.
    """
    inside = events.c.position.between(restarts.c.from_position, restarts.c.to_position)
    one = sa.select(events.c.position).where(_writes(path), events.c.workspace == restarts.c.workspace, inside)
    return one.limit(ONE).correlate(restarts).scalar_subquery().is_not(None)


def _workspaces_with(sql: Statements, path: str) -> list[str]:
    """Return the workspaces in which ``path`` was written, one index probe each; all, or more than the few."""
    next_one = sa.select(events.c.workspace).where(_writes(path)).order_by(events.c.workspace).limit(ONE)
    first = sa.select(next_one.scalar_subquery().label("workspace"), sa.literal(0).label("count"))
    found = first.cte("found", recursive=True)
    later = next_one.where(events.c.workspace > found.c.workspace).correlate(found).scalar_subquery()
    more = sa.select(later, found.c.count + 1).where(found.c.workspace.is_not(None), found.c.count < FEW_WORKSPACES)
    found = found.union_all(more)
    return list(sql.run(sa.select(found.c.workspace).where(found.c.workspace.is_not(None))).scalars())
