"""Questions over many restarts, answered by the database from their read model: sums, waits, storms."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from orchestrator.domain.events import Cause
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.ports.inquiries import Percentiles, RestartSum, Scope, Waits, percentiles
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.restart_pages import Page, queued_between
from orchestrator.storage.sql.schema import restarts
from orchestrator.storage.sql.statements import Statements

_MS = timedelta(milliseconds=1)
_RANKS = {"p50": 50, "p90": 90, "p99": 99, "max": 100}


def restart_sums(sql: Statements, scope: Scope, most: int) -> list[RestartSum]:
    """Return the sums over the newest ``most`` restarts in scope."""
    columns = restarts.c
    newest = _newest(_in_scope(scope), most).with_only_columns(
        columns.state, columns.cause, columns.writes, columns.attempts, columns.shadow
    )
    return summed(sql, newest.subquery())


def summed(sql: Statements, restarts_of: sa.Subquery) -> list[RestartSum]:
    """Return the sums over some restarts, given as state, cause, writes, attempts and shadow."""
    each = restarts_of.c
    chosen = sa.select(
        each.state,
        each.cause,
        sa.func.count().label("restarts"),
        sa.func.count().filter(each.attempts > 0, each.writes > 0).label("started"),
        sa.func.count().filter(each.shadow).label("shadow"),
        sa.func.sum(each.writes).label("writes"),
        sa.func.sum(each.attempts).label("cycles"),
    ).group_by(each.state, each.cause)
    return [
        RestartSum(
            state=RestartState(row.state),
            cause=Cause(row.cause),
            restarts=row.restarts,
            started=row.started,
            shadow=row.shadow,
            writes=int(row.writes),
            cycles=int(row.cycles),
        )
        for row in sql.run(chosen)
    ]


def waits(sql: Statements, scope: Scope, most: int) -> Waits:
    """Return the waits of those of the newest ``most`` restarts in scope that succeeded; nearest-rank percentiles.

    However few succeeded, no more are looked at.
    """
    times = (restarts.c.opened_at, restarts.c.started_at, restarts.c.ended_at)
    looked_at = _newest(_in_scope(scope), most).with_only_columns(restarts.c.state, *times).subquery().c
    succeeded = looked_at.state == RestartState.SUCCEEDED.value
    newest = sa.select(looked_at.opened_at, looked_at.started_at, looked_at.ended_at).where(succeeded)
    return _waits_here(sql, newest) if sql.dialect == "sqlite" else _waits_there(sql, newest)


def _waits_here(sql: Statements, newest: Page) -> Waits:
    """Measure in this process: SQLite is in it too, and its window functions take three times as long (measured)."""
    found = sql.run(newest).all()
    return Waits(
        restarts=len(found),
        to_start_ms=percentiles((started_at - opened_at) // _MS for opened_at, started_at, _ in found),
        to_success_ms=percentiles((ended_at - opened_at) // _MS for opened_at, _, ended_at in found),
    )


def _waits_there(sql: Statements, newest: Page) -> Waits:
    """Measure in the database server: one row comes back."""
    each = newest.subquery().c
    to_start, to_success = _ms_between(each.opened_at, each.started_at), _ms_between(each.opened_at, each.ended_at)
    measured = sa.select(to_start.label("to_start_ms"), to_success.label("to_success_ms")).subquery()
    names = [column.name for column in measured.c]
    ranked = sa.select(
        measured,
        *(sa.func.row_number().over(order_by=measured.c[name]).label(f"{name}_rank") for name in names),
        sa.func.count().over().label("count"),
    ).subquery()
    asked = [sa.func.count().label("restarts")]
    for name in names:
        for of, percent in _RANKS.items():
            up_to = ranked.c[f"{name}_rank"] * 100 <= ranked.c.count * percent + 99
            asked.append(sa.func.max(ranked.c[name]).filter(up_to).label(f"{name}_{of}"))
    row = sql.run(sa.select(*asked)).mappings().one()
    found = {name: Percentiles(**{of: row[f"{name}_{of}"] for of in _RANKS}) for name in names}
    return Waits(restarts=row["restarts"], **found)


def storms(sql: Statements, scope: Scope, limit: int, most: int) -> list[RestartProjection]:
    """Return the restarts with the most writes, most first; with a span, of the newest ``most`` in it."""
    chosen = _in_scope(scope)
    if scope.since is not None or scope.until is not None:
        inside = _newest(chosen, most).with_only_columns(restarts.c.id).subquery()
        chosen = sa.select(restarts).where(restarts.c.id.in_(sa.select(inside.c.id)))
    found = chosen.order_by(restarts.c.writes.desc(), restarts.c.queued_position.desc()).limit(limit)
    return lookups.restart_projections(sql, found)


def _in_scope(scope: Scope) -> Page:
    chosen = sa.select(restarts).where(*queued_between(scope.since, scope.until))
    if scope.workspace is not None:
        chosen = chosen.where(restarts.c.workspace == scope.workspace)
    if scope.fleet is not None:
        chosen = chosen.where(restarts.c.fleet == scope.fleet)
    return chosen


def _newest(chosen: Page, most: int) -> Page:
    return chosen.order_by(restarts.c.queued_position.desc()).limit(most)


def _ms_between(first: sa.ColumnElement[datetime], last: sa.ColumnElement[datetime]) -> sa.ColumnElement[int]:
    """Return the whole milliseconds from one instant of PostgreSQL's to a later one, exactly."""
    elapsed = sa.extract("epoch", sa.type_coerce(last, sa.DateTime) - sa.type_coerce(first, sa.DateTime))
    return sa.cast(sa.func.floor(elapsed * 1_000), sa.BigInteger)
