"""Pages of restart history, newest first: few statements, whatever the filters and however deep the page.

``workspace``, ``fleet``, ``state`` and ``cause`` are ranges of indexes by ``queued_position``. ``queued_at`` rises with
``queued_position``, so that since and until are bounds of it too. For a path: ``restarts_of_path``.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.events import Cause
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.ports.store import RestartFilter
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.index_ranges import limit_of, merged, rounded
from orchestrator.storage.sql.schema import PREFIX_CHARACTERS, restarts
from orchestrator.storage.sql.statements import ONE, Statements

Page = sa.Select[*tuple[Any, ...]]
At = datetime | sa.ColumnElement[Any]

_BEYOND = 2**63 - 1
_SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def restart_page(sql: Statements, wanted: RestartFilter) -> list[RestartProjection]:
    """Return a page of the restarts for which the filter holds."""
    rows = sql.fetch(_page(shape_of(wanted), sql.dialect), values_of(wanted))
    return [lookups.restart_of(sql, row) for row in rows[: wanted.limit]]


def shape_of(wanted: RestartFilter) -> RestartFilter:
    """Return the filter with what its statement does not depend on left out: which values are given is kept.

    Statements are kept by it. To build one of several ranges costs more than to run it.
    """
    return RestartFilter(
        workspace=None if wanted.workspace is None else "",
        fleet=None if wanted.fleet is None else "",
        since=None if wanted.since is None else _SOME_TIME,
        until=None if wanted.until is None else _SOME_TIME,
        state=wanted.state,
        cause=wanted.cause,
        path=None if wanted.path is None else wanted.path[:1] * min(len(wanted.path), PREFIX_CHARACTERS),
        before=None if wanted.before is None else 0,
        after=None if wanted.after is None else 0,
        limit=rounded(wanted.limit),
    )


def values_of(wanted: RestartFilter) -> dict[str, Any]:
    """Return what the statement of that filter is given."""
    named = {name: getattr(wanted, name) for name in ("workspace", "fleet", "since", "until", "before", "after")}
    given = {name: value for name, value in named.items() if value is not None}
    if wanted.path is not None:
        given |= {"path": wanted.path[:PREFIX_CHARACTERS], "rest": wanted.path[PREFIX_CHARACTERS:]}
    return given


@lru_cache(maxsize=256)
def _page(shape: RestartFilter, dialect: str) -> Page:
    chosen = sa.select(*lookups.restart_columns(dialect))
    if shape.state is None and shape.cause is None:
        return _in_order(chosen, shape, dialect).limit(limit_of(shape.limit))
    first = first_wanted(shape, dialect, shape.limit)
    return chosen.join(first, first.c.id == restarts.c.id).order_by(_order(shape, restarts.c.queued_position))


def first_wanted(shape: RestartFilter, dialect: str, most: int, *also: sa.ColumnElement[bool]) -> sa.Subquery:
    """Return ``id`` and ``queued_position`` of the first ``most`` restarts of the filter, or a few more.

    ``also``: what must hold of them too.

    Of an index by state, cause and position one range each: of the given ones, or of all that there are.
    """
    columns = (restarts.c.id, restarts.c.queued_position)
    limit = limit_of(most)
    every = merged([chosen.limit(limit) for chosen in each_kind(sa.select(*columns).where(*also), shape, dialect)])
    first = sa.select(every.c.id, every.c.queued_position)
    return first.order_by(_order(shape, every.c.queued_position)).limit(limit).subquery("first")


def each_kind(chosen: Page, shape: RestartFilter, dialect: str) -> list[Page]:
    """Return the selection once for each range of an index by state and cause that the filter wants, in order."""
    if shape.state is None and shape.cause is None:
        return [_in_order(chosen, shape, dialect)]
    states = list(RestartState) if shape.state is None else [shape.state]
    causes = list(Cause) if shape.cause is None else [shape.cause]
    return [
        _in_order(chosen, replace(shape, state=state, cause=cause), dialect) for state in states for cause in causes
    ]


def of_kind(shape: RestartFilter, among: sa.FromClause = restarts) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on restarts that a filter's state and cause say."""
    state = [] if shape.state is None else [is_state(shape.state, among)]
    return state if shape.cause is None else [*state, is_cause(shape.cause, among)]


def is_state(state: RestartState, among: sa.FromClause = restarts) -> sa.ColumnElement[bool]:
    """Return the condition that a restart is in that state, which is written into the statement."""
    return among.c.state == sa.literal_column(f"'{state.value}'", sa.Text())


def is_cause(cause: Cause, among: sa.FromClause = restarts) -> sa.ColumnElement[bool]:
    """Return the condition that a restart has that cause, which is written into the statement."""
    return among.c.cause == sa.literal_column(f"'{cause.value}'", sa.Text())


def _order(shape: RestartFilter, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return column.asc() if shape.after is not None else column.desc()


def _in_order(chosen: Page, shape: RestartFilter, dialect: str) -> Page:
    """Add the conditions of a filter of one range, but for its path, and the order by ``queued_position``.

    In a kept plan PostgreSQL expects as much of any workspace or fleet as of an average one: it would read all restarts
    of a large workspace to sort them, and all there are in search of a small fleet's.
    """
    position = restarts.c.queued_position
    if dialect == "postgresql" and shape.workspace is not None:
        chosen = chosen.where(position.between(sa.bindparam("least", 0), sa.bindparam("most", _BEYOND)))
    elif dialect == "postgresql" and shape.fleet is not None:
        return _range_of_fleet(chosen, shape)
    return chosen.where(*filtered(shape), *of_kind(shape)).order_by(_order(shape, position))


def _range_of_fleet(chosen: Page, shape: RestartFilter) -> Page:
    """Add the same as a range of an index by fleet and in its whole order, which no other index has."""
    kind = [
        (restarts.c[name], sa.literal_column(f"'{value.value}'", sa.Text()))
        for name, value in (("state", shape.state), ("cause", shape.cause))
        if value is not None
    ]
    columns = (restarts.c.fleet, *(column for column, _ in kind), restarts.c.queued_position)
    named = (sa.bindparam("fleet", type_=sa.Text()), *(value for _, value in kind))

    def place(bound: str, otherwise: int, is_given: bool) -> sa.Tuple:
        at = sa.bindparam(bound, type_=sa.BigInteger()) if is_given else sa.literal_column(str(otherwise))
        return sa.tuple_(*named, at)

    first = sa.tuple_(*columns) > place("after", -1, shape.after is not None)
    last = sa.tuple_(*columns) < place("before", _BEYOND, shape.before is not None)
    rest = filtered(replace(shape, fleet=None, before=None, after=None))
    return chosen.where(first, last, *rest).order_by(*(_order(shape, column) for column in columns))


def filtered(shape: RestartFilter, among: sa.FromClause = restarts) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on restarts of a filter of that shape, but for its state, cause and path."""
    since, until = (
        None if at is None else sa.bindparam(name, type_=Instant())
        for name, at in (("since", shape.since), ("until", shape.until))
    )
    conditions = queued_between(since, until, among)
    if shape.workspace is not None:
        conditions.append(among.c.workspace == sa.bindparam("workspace"))
    if shape.fleet is not None:
        conditions.append(among.c.fleet == sa.bindparam("fleet"))
    if shape.before is not None:
        conditions.append(among.c.queued_position < sa.bindparam("before"))
    if shape.after is not None:
        conditions.append(among.c.queued_position > sa.bindparam("after"))
    return conditions


def queued_between(since: At | None, until: At | None, among: sa.FromClause = restarts) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on ``queued_position`` that say: queued then or later, and before."""
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(among.c.queued_position >= first_queued_from(since))
    if until is not None:
        conditions.append(among.c.queued_position < sa.func.coalesce(first_queued_from(until), _BEYOND))
    return conditions


def first_queued_from(at: At) -> sa.ScalarSelect[int]:
    """Return the position at which the first restart of that instant or later was queued; NULL: none was."""
    later = restarts.alias()
    first = sa.select(later.c.queued_position).where(later.c.queued_at >= at)
    return first.order_by(later.c.queued_at, later.c.queued_position).limit(ONE).scalar_subquery()
