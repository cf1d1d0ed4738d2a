"""Restarts whose ranges hold a write of a path, newest first: at most five statements a page, however long the history.

Looked for from both sides. From the path's writes where those are few: each names the range that holds it. From the
other filters, if there are any: where few restarts pass them, or nearly all hold the path, their newest ones are all
that is needed; else whichever side is the rarer one is gone through, at a probe or two each. Where both sides are
common, or nothing else is asked for, from the writes in their order: a path's newest write names the range that holds
it, and the next one looked for lies before that range, so each range costs a few index probes; all within one
statement, which goes some ranges deep, and if that does not fill the page, deeper.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from orchestrator.domain.encoding import canonical_json
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.ports.store import RestartFilter
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.index_ranges import limit_of, merged, rounded
from orchestrator.storage.sql.restart_pages import (
    Page,
    each_kind,
    filtered,
    first_queued_from,
    first_wanted,
    of_kind,
    shape_of,
    values_of,
)
from orchestrator.storage.sql.schema import IS_WRITE, PREFIX_CHARACTERS, events, path_prefix, restarts
from orchestrator.storage.sql.statements import ONE, Statements

FEW_WORKSPACES = 50
"""A path in more workspaces than that is common: restarts are then looked through newest first, one probe each."""

FEW_RESTARTS = 128
"""So many restarts that pass the other filters are looked at before what there is of either side is counted."""

FEW_WRITES = 256
"""Of fewer writes each is followed at once."""

MANY_WRITES, MANY_RESTARTS = 1_024, 8_192
"""From so many on a side is common. To follow a write costs about twice what it costs to probe a restart."""

_ALL = 2**31 - 1
_DEPTHS = (1, 16, _ALL)
"""How deep the ranges are gone into, as multiples of what mostly fills a page."""

_ALONG_INDEX = (events.c.workspace, events.c.position)
"""The order of the index over paths: without it PostgreSQL collects all writes of a path before it takes the first."""

_kept = lru_cache(maxsize=256)
_NONE: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer())
_ZERO = sa.cast(sa.literal_column("0"), sa.BigInteger())


def restarts_of_path(sql: Statements, wanted: RestartFilter) -> list[RestartProjection]:
    """Return a page of the restarts that the filter wants and whose ranges hold a write of its path."""
    if wanted.after is not None:
        return _page_of(sql, wanted, _probing(shape_of(wanted), sql.dialect))
    if replace(wanted, workspace=None, before=None, path=None, limit=1) != RestartFilter(limit=1):
        return _among_others(sql, wanted)
    if wanted.workspace is not None:
        return _among_ranges(sql, wanted, [wanted.workspace], _DEPTHS)
    if _count(sql, wanted, _writes_up_to(shape_of(wanted), FEW_WRITES)) < FEW_WRITES:
        return _page_of(sql, wanted, _of_writes(shape_of(wanted), sql.dialect))
    holders = _workspaces_with(sql, wanted)
    if len(holders) > FEW_WORKSPACES:
        return _page_of(sql, wanted, _probing(shape_of(wanted), sql.dialect))
    return _among_ranges(sql, wanted, holders, _DEPTHS) if holders else []


def _among_others(sql: Statements, wanted: RestartFilter) -> list[RestartProjection]:
    """Return the page where there are other filters: whichever side is the rarer one leads."""
    shape = shape_of(wanted)
    if _count(sql, wanted, _writes_up_to(shape, FEW_WRITES)) < FEW_WRITES:
        return _page_of(sql, wanted, _of_writes(shape, sql.dialect))
    found, are_all = _among_first(sql, wanted)
    if are_all or len(found) >= wanted.limit:
        return found[: wanted.limit]
    writes, others = _how_many(sql, wanted)
    expected = min(others, wanted.limit * FEW_RESTARTS // len(found)) if found else others
    if writes < MANY_WRITES and 2 * writes < expected:
        return _page_of(sql, wanted, _of_writes(shape, sql.dialect))
    if others < MANY_RESTARTS:
        return _page_of(sql, wanted, _of_restarts(shape, sql.dialect))
    if wanted.workspace is not None:
        return _among_ranges(sql, wanted, [wanted.workspace], (2, _ALL))
    return _page_of(sql, wanted, _probing(shape, sql.dialect))


def _count(sql: Statements, wanted: RestartFilter, counting: Page) -> int:
    [(count,)] = sql.fetch(counting, values_of(wanted))
    return int(count)


@_kept
def _writes_up_to(shape: RestartFilter, most: int) -> Page:
    """Return the statement for the number of writes of the path, or ``most`` where there are more."""
    writes = sa.select(events.c.position).where(*_written(shape)).order_by(*_ALONG_INDEX).limit(limit_of(most))
    return sa.select(sa.func.count()).select_from(writes.subquery())


def _how_many(sql: Statements, wanted: RestartFilter) -> tuple[int, int]:
    """Return how many writes of the path there are, and restarts that pass the other filters; of many, not all."""
    [(writes, others)] = sql.fetch(
        _counting(shape_of(wanted), sql.dialect, MANY_WRITES, MANY_RESTARTS), values_of(wanted)
    )
    return writes, others


@_kept
def _counting(shape: RestartFilter, dialect: str, many_writes: int, many_restarts: int) -> Page:
    ranges = each_kind(sa.select(restarts.c.queued_position), shape, dialect)
    limit = limit_of(many_restarts)
    others = sa.select(merged([chosen.limit(limit) for chosen in ranges])).limit(limit)
    counted = sa.select(sa.func.count()).select_from(others.subquery())
    return sa.select(_writes_up_to(shape, many_writes).scalar_subquery(), counted.scalar_subquery())


def _among_first(sql: Statements, wanted: RestartFilter) -> tuple[list[RestartProjection], bool]:
    """Return those of the first restarts of the other filters that hold the path, and whether there are no more."""
    rows = sql.fetch(_looking_at_first(shape_of(wanted), sql.dialect, FEW_RESTARTS), values_of(wanted))
    return [lookups.restart_of(sql, row) for holds, *row in rows if holds], len(rows) < FEW_RESTARTS


@_kept
def _looking_at_first(shape: RestartFilter, dialect: str, few: int) -> Page:
    first = first_wanted(shape, dialect, few)
    looked_at = sa.select(_holds(shape), *lookups.restart_columns(dialect)).join(first, first.c.id == restarts.c.id)
    return looked_at.order_by(restarts.c.queued_position.desc())


def _page_of(sql: Statements, wanted: RestartFilter, statement: Page) -> list[RestartProjection]:
    rows = sql.fetch(statement, values_of(wanted))
    return [lookups.restart_of(sql, row) for row in rows[: wanted.limit]]


@_kept
def _of_restarts(shape: RestartFilter, dialect: str) -> Page:
    """Return the statement for the restarts of the other filters that hold the path: one probe each."""
    return _chosen(shape, dialect, first_wanted(shape, dialect, shape.limit, _holds(shape)))


@_kept
def _of_writes(shape: RestartFilter, dialect: str) -> Page:
    """Return the statement for the restarts that hold the writes of the path, each of which names a range.

    Restarts that hold the same write begin at the same position, and the first one to end after it is one of them.
    """
    first_ending = (
        sa.select(restarts.c.from_position)
        .where(restarts.c.workspace == events.c.workspace, restarts.c.to_position >= events.c.position)
        .order_by(restarts.c.to_position)
        .limit(ONE)
        .correlate(events)
        .scalar_subquery()
    )
    named = sa.select(events.c.workspace, events.c.position, first_ending.label("first")).where(*_written(shape))
    each = (
        named.order_by(*_ALONG_INDEX).offset(_NONE).subquery("named")
    )  # OFFSET 0 here: SQLite would look each one up three times
    least = sa.func.min(each.c.position).label("position")
    ranges = sa.select(each.c.workspace, each.c.first, least).where(each.c.first <= each.c.position)
    held = _held_in(dialect, ranges.group_by(each.c.workspace, each.c.first).subquery("ranges"))
    first = sa.select(held.c.id, held.c.queued_position).where(*filtered(shape, held), *of_kind(shape, held))
    first = first.order_by(held.c.queued_position.desc()).limit(limit_of(shape.limit))
    return _chosen(shape, dialect, first.subquery("first"))


def _held_in(dialect: str, ranges: sa.Subquery) -> sa.Subquery:
    """Return what filters ask for of the restarts that begin where a range does and reach its ``position``.

    OFFSET 0 keeps it a look-up for each range: both databases would rather begin with the restarts.
    """
    columns = [restarts.c[name] for name in ("id", "workspace", "fleet", "state", "cause", "queued_position")]
    same = sa.and_(restarts.c.workspace == ranges.c.workspace, restarts.c.from_position == ranges.c.first)
    holding = sa.and_(same, restarts.c.to_position >= ranges.c.position)
    if dialect == "sqlite":
        return sa.select(*columns).select_from(ranges.join(restarts, holding)).offset(_NONE).subquery("held")
    each = sa.select(*columns).where(holding).offset(_NONE).correlate(ranges).lateral("each")
    return sa.select(*each.c).select_from(ranges.join(each, sa.true())).subquery("held")


def _chosen(shape: RestartFilter, dialect: str, first: sa.Subquery) -> Page:
    """Return the statement for the restarts of those ids: only what is on the page is read whole."""
    chosen = sa.select(*lookups.restart_columns(dialect))
    if dialect == "sqlite":
        return chosen.join(first, first.c.id == restarts.c.id).order_by(first.c.queued_position.desc())
    whole = chosen.where(restarts.c.id == first.c.id).offset(_NONE).correlate(first).lateral("whole")
    return sa.select(*whole.c).select_from(first.join(whole, sa.true())).order_by(first.c.queued_position.desc())


@_kept
def _probing(shape: RestartFilter, dialect: str) -> Page:
    """Return the statement for the restarts of the other filters, one probe each for the path."""
    position = restarts.c.queued_position
    chosen = sa.select(*lookups.restart_columns(dialect)).where(*filtered(shape), *of_kind(shape), _holds(shape))
    order = position.desc() if shape.after is None else position.asc()
    return chosen.order_by(order).limit(limit_of(shape.limit))


@dataclass
class _Reached:
    """How far a workspace's ranges were gone through. ``queued``: by then, what is unread was queued before it."""

    ranges: int = 0
    queued: int = 0
    found: dict[str, RestartProjection] = field(default_factory=dict)


def _among_ranges(
    sql: Statements, wanted: RestartFilter, holders: Sequence[str], depths: Sequence[int]
) -> list[RestartProjection]:
    """Go through the ranges that hold the path in each of the workspaces, until the page is full or there are none."""
    shape, given = shape_of(wanted), {**values_of(wanted), "holders": canonical_json(list(holders))}
    deep = rounded(2 + max(shape.limit, FEW_RESTARTS) // len(holders))
    for most in (min(deep * depth, _ALL) for depth in depths):
        reached = _reached(sql, _in_ranges(shape, sql.dialect, most), given)
        records = (record for one in reached for record in one.found.values())
        found = sorted(records, key=lambda record: -record.queued_position)
        bound = max((one.queued for one in reached if one.ranges >= most), default=0)
        if bound == 0 or sum(record.queued_position >= bound for record in found) >= wanted.limit:
            break
    return found[: wanted.limit]


def _reached(sql: Statements, ranges: Page, given: Mapping[str, Any]) -> Collection[_Reached]:
    reached: dict[str, _Reached] = {}
    for workspace, count, queued, restart, *row in sql.fetch(ranges, given):
        one = reached.setdefault(workspace, _Reached(queued=queued))
        one.ranges, one.queued = max(one.ranges, count), min(one.queued, queued)
        if restart is not None:
            one.found[restart] = lookups.restart_of(sql, row)
    return reached.values()


@_kept
def _in_ranges(shape: RestartFilter, dialect: str, most: int) -> Page:
    """Return the statement for the wanted restarts of up to ``most`` ranges in each workspace that hold the path.

    Its rows: the workspace, how many ranges it is deep, where that one was queued, the restart's id (NULL: none of the
    range is wanted), its columns. Not ordered by the database: SQLite would read the whole workspace along the order.
    """
    ranges = _ranges(shape, dialect, most)
    same = sa.and_(restarts.c.workspace == ranges.c.workspace, restarts.c.from_position == ranges.c.first)
    mine = sa.and_(same, _holds(shape), *filtered(shape), *of_kind(shape))
    reached = (ranges.c.workspace, ranges.c.count, ranges.c.queued)
    told = (restarts.c.id.label("restart"), *lookups.restart_columns(dialect))
    if dialect == "sqlite":
        return sa.select(*reached, *told).select_from(ranges.outerjoin(restarts, mine)).where(ranges.c.count > 0)
    # OFFSET 0 keeps it a look-up for each range: PostgreSQL would hash all restarts there are.
    each = sa.select(*told).where(mine).offset(_NONE).correlate(ranges).lateral("each")
    return sa.select(*reached, *each.c).select_from(ranges.outerjoin(each, sa.true())).where(ranges.c.count > 0)


def _ranges(shape: RestartFilter, dialect: str, most: int) -> sa.CTE:
    """Return up to ``most`` ranges of each workspace that hold a write of the path, newest first; row 0 is the start.

    Restarts that hold the same write begin at the same position: only what settles a range moves the next one's
    beginning. A write that no restart ever held (waived in its window) counts as a range of its own.
    """
    workspace = _each_holder(dialect)
    start = _end_of_newest(shape, workspace).label("first"), _floor(shape, workspace).label("floor")
    seeds: Page = sa.select(
        workspace.label("workspace"), *start, sa.literal_column("0").label("count"), _ZERO.label("queued")
    )
    reached = seeds.cte("reached", recursive=True)
    newest = (
        sa.select(events.c.position)
        .where(_writes(shape), events.c.workspace == reached.c.workspace, events.c.position < reached.c.first)
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
    held = _with_holder(dialect, reached, first_ending)
    holder = held.right.c
    begin = sa.case((holder.from_position < reached.c.first, holder.from_position), else_=newest)
    columns = (reached.c.workspace, begin, reached.c.floor, reached.c.count + 1, holder.queued_position)
    following = sa.select(*columns).select_from(held)
    goes_on = sa.and_(reached.c.count < sa.literal_column(str(most)), reached.c.first > reached.c.floor)
    return reached.union_all(following.where(goes_on))


def _with_holder(dialect: str, reached: sa.CTE, restart: sa.ScalarSelect[str]) -> Any:
    """Join the restart of that id to each row, by a look-up: PostgreSQL would read all restarts for a hash join."""
    if dialect == "sqlite":
        holder = restarts.alias("holder")
        return sa.join(reached, holder, holder.c.id == restart)
    found = sa.select(restarts.c.from_position, restarts.c.queued_position).where(restarts.c.id == restart)
    return sa.join(reached, found.limit(ONE).lateral("holder"), sa.true())


def _each_holder(dialect: str) -> sa.ColumnElement[str]:
    """Return the column of a table that holds the names of the workspaces."""
    listed = sa.bindparam("holders", type_=sa.Text())
    if dialect == "sqlite":
        return sa.func.json_each(listed).table_valued("value", name="named").c.value
    each = sa.func.json_array_elements_text(sa.cast(listed, postgresql.JSON)).table_valued("value", name="named")
    return sa.collate(each.c.value, "C")


def _end_of_newest(shape: RestartFilter, workspace: sa.ColumnElement[str]) -> sa.ScalarSelect[int]:
    """Return the position after the range of a workspace's newest restart that the page may hold; NULL: none."""
    bound = filtered(replace(shape, workspace=None, fleet=None, since=None))
    newest = sa.select(restarts.c.to_position + 1).where(restarts.c.workspace == workspace, *bound)
    newest = newest.select_from(restarts).order_by(restarts.c.queued_position.desc()).limit(ONE)
    return newest.correlate_except(restarts).scalar_subquery()


def _floor(shape: RestartFilter, workspace: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    """Return where the ranges begin of which a restart was queued at ``since`` or later; 0 without it."""
    if shape.since is None:
        return _ZERO
    since = restarts.c.queued_position >= first_queued_from(sa.bindparam("since", type_=Instant()))
    oldest = sa.select(restarts.c.from_position).where(restarts.c.workspace == workspace, since)
    oldest = oldest.select_from(restarts).order_by(restarts.c.queued_position).limit(ONE)
    return oldest.correlate_except(restarts).scalar_subquery()


def _written(shape: RestartFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that an event is a write of the path, in the workspace if one is wanted."""
    of = [] if shape.workspace is None else [events.c.workspace == sa.bindparam("workspace")]
    return [_writes(shape), *of]


def _writes(shape: RestartFilter) -> sa.ColumnElement[bool]:
    """Return the condition that an event is a write of the path, in the words of the index over paths."""
    same = sa.and_(IS_WRITE, path_prefix == sa.bindparam("path"))
    if shape.path is not None and len(shape.path) < PREFIX_CHARACTERS:
        return same
    # The rest, not the whole: SQLite would put an equal whole into the prefix, and see no index any more.
    return sa.and_(same, sa.func.substr(events.c.subject, PREFIX_CHARACTERS + 1) == sa.bindparam("rest"))


def _holds(shape: RestartFilter) -> sa.ColumnElement[bool]:
    """Return the condition that a write of the path is in a restart's range: a probe of the index for each restart.

    Not EXISTS: PostgreSQL would join all writes of the path there are.
    """
    inside = events.c.position.between(restarts.c.from_position, restarts.c.to_position)
    one = sa.select(events.c.position).where(_writes(shape), events.c.workspace == restarts.c.workspace, inside)
    return one.limit(ONE).correlate(restarts).scalar_subquery().is_not(None)


def _workspaces_with(sql: Statements, wanted: RestartFilter) -> list[str]:
    """Return the workspaces in which the path was written, one index probe each; all, or more than the few."""
    return [row[0] for row in sql.fetch(_holding(shape_of(wanted), FEW_WORKSPACES), values_of(wanted))]


@_kept
def _holding(shape: RestartFilter, few: int) -> Page:
    next_one = sa.select(events.c.workspace).where(_writes(shape)).order_by(events.c.workspace).limit(ONE)
    first = sa.select(next_one.scalar_subquery().label("workspace"), sa.literal(0).label("count"))
    found = first.cte("found", recursive=True)
    later = next_one.where(events.c.workspace > found.c.workspace).correlate(found).scalar_subquery()
    more = sa.select(later, found.c.count + 1).where(found.c.workspace.is_not(None), found.c.count < few)
    found = found.union_all(more)
    return sa.select(found.c.workspace).where(found.c.workspace.is_not(None))
