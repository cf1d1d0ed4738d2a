"""The kept sums: adding to them, and answers made of them and of what came after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from orchestrator.domain.events import Cause
from orchestrator.domain.restart_projection import SETTLED, RestartState
from orchestrator.ports.inquiries import RestartSum, Scope
from orchestrator.ports.sums import (
    DAY_S,
    FIVE_MINUTES_S,
    Activity,
    Of,
    SumKind,
    SumsToAdd,
)
from orchestrator.storage.sql import failure_events
from orchestrator.storage.sql.log_spans import recorded_between
from orchestrator.storage.sql.many_rows import ManyRows
from orchestrator.storage.sql.restart_pages import is_state, queued_between
from orchestrator.storage.sql.restart_sums import summed
from orchestrator.storage.sql.schema import (
    NOT_A_WRITE,
    activity_sums,
    backlog_sums,
    events,
    failure_sums,
    restart_sums,
    restarts,
    summed_workspaces,
)
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.sums_to_add import EVERY, SETTLING, begin_of, kept_and_last

NEAR = 20_000
"""Positions after the kept sums that a question adds by itself: some 10 ms."""

_UNSETTLED = [state for state in RestartState if state not in SETTLED]


class Span(NamedTuple):
    """From when on, and before when; None: without end."""

    since: datetime | None
    until: datetime | None


def add_sums(sql: Statements, new: SumsToAdd) -> None:
    """Add what a stretch of the log adds, in one statement on PostgreSQL."""
    batch = ManyRows(sql)
    batch.upsert(summed_workspaces, [{"workspace": name, **one._asdict()} for name, one in new.workspaces.items()])
    batch.add(backlog_sums, list(_rows(backlog_sums, new.backlog.items())))
    batch.add(activity_sums, list(_rows(activity_sums, (((*of, at), one) for (of, at), one in new.activity.items()))))
    for table, found in ((restart_sums, new.restarts), (failure_sums, new.failures)):
        flat = (((*period.of, period.period_s, period.since, *rest), one) for (period, *rest), one in found.items())
        batch.add(table, list(_rows(table, flat)))
    batch.send()


def _rows(table: sa.Table, found: Iterable[tuple[tuple[Any, ...], tuple[int, ...]]]) -> Iterator[dict[str, Any]]:
    names = [column.name for column in table.columns]
    for key, amounts in found:
        yield dict(zip(names, (*key, *amounts), strict=True))


def near_position(sql: Statements) -> int | None:
    """Return the position that the sums are kept for; None: too much came after it for a question to add, or nobody
    keeps them.
    """
    kept, last = kept_and_last(sql)
    return kept if kept > 0 and last - kept <= NEAR else None


def kept_restart_sums(sql: Statements, scope: Scope, after: int) -> list[RestartSum]:
    """Return the sums over all restarts in scope: the kept ones, what settled since, what is unsettled, and both edges.

    The span's edges are less than five minutes each; their restarts are read one by one.
    """
    whole, edges = _parts(scope)
    of = restarts.c
    looked_at = sa.select(of.state, of.cause, of.writes, of.attempts, of.shadow)
    if scope.fleet is not None:
        looked_at = looked_at.where(of.fleet == scope.fleet)
    branches = [looked_at.where(*queued_between(*edge)) for edge in edges]
    if whole is not None:
        # Not the column itself: its index would be ranged over, where few are unsettled and fewer settled just now.
        in_whole = looked_at.where(*_between(sa.func.coalesce(of.queued_at, of.queued_at), whole))
        branches += [in_whole.where(is_state(state)) for state in _UNSETTLED]
        branches.append(in_whole.where(of.id.in_(_settled_since(after))))
    found = summed(sql, sa.union_all(*branches).subquery())
    return _merged([*_kept_restarts(sql, scope, whole), *found])


def kept_failure_counts(sql: Statements, scope: Scope, after: int) -> dict[tuple[str, str | None], int]:
    """Return how often each type of failure came in scope: the kept ones, those since, and those of both edges."""
    whole, edges = _parts(scope)
    spans = [recorded_between(*edge) for edge in edges]
    if whole is not None:
        spans.append([events.c.position > sa.literal(after), *_between(events.c.recorded_at, whole)])
    counted = failure_events.counted_in(sql, scope, spans)
    if whole is not None:
        kept = failure_sums.c
        rows = _of_periods(failure_sums, scope, whole, kept.type, kept.error, kept.failures)
        for name, error, count in sql.run(_totals(rows, 2)):
            key = name, error or None
            counted[key] = counted.get(key, 0) + int(count)
    return counted


def activity(
    sql: Statements, kind: SumKind, since: datetime, name: str | None
) -> Sequence[tuple[Of, datetime, Activity]]:
    """Return what is kept of each five minutes that began then or later."""
    kept = activity_sums.c
    chosen = sa.select(activity_sums).where(kept.kind == kind.value, kept.since >= since)
    if name is not None:
        chosen = chosen.where(kept.name == name)
    return [
        (Of(kind, row.name), row.since, Activity(row.writes, row.restarts, row.cycles_failed))
        for row in sql.run(chosen.order_by(kept.since, kept.name))
    ]


def _kept_restarts(sql: Statements, scope: Scope, whole: Span | None) -> Iterator[RestartSum]:
    if whole is None:
        return
    kept = restart_sums.c
    amounts = (kept.restarts, kept.started, kept.shadow, kept.writes, kept.cycles)
    rows = _of_periods(restart_sums, scope, whole, kept.state, kept.cause, *amounts)
    for state, cause, *counts in sql.run(_totals(rows, 2)):
        yield _sum(RestartState(state), Cause(cause), counts)


def _settled_since(after: int) -> sa.CompoundSelect[str | None]:
    since = events.c.position > sa.literal(after)
    return sa.union_all(
        *(
            sa.select(events.c.subject).where(sa.literal_column(f"type = '{name}'"), NOT_A_WRITE, since)
            for name in SETTLING
        )
    )


def _parts(scope: Scope) -> tuple[Span | None, list[Span]]:
    """Return the part of a span that is made of whole periods, None if there is none, and what is left of it."""
    first = None if scope.since is None else _next_begin(scope.since)
    last = None if scope.until is None else begin_of(scope.until, FIVE_MINUTES_S)
    if first is not None and last is not None and first >= last:
        return None, [Span(scope.since, scope.until)]
    edges = []
    if first is not None and first != scope.since:
        edges.append(Span(scope.since, first))
    if last is not None and last != scope.until:
        edges.append(Span(last, scope.until))
    return Span(first, last), edges


def _next_begin(at: datetime, period_s: int = FIVE_MINUTES_S) -> datetime:
    begun = begin_of(at, period_s)
    return begun if begun == at else begun + timedelta(seconds=period_s)


def _of_periods(table: sa.Table, scope: Scope, whole: Span, *columns: sa.ColumnElement[Any]) -> sa.Subquery:
    """Return the rows whose periods make up a span: days, and five minutes before the first and after the last."""
    of = EVERY if scope.fleet is None else Of(SumKind.FLEET, scope.fleet)
    first = None if whole.since is None else _next_begin(whole.since, DAY_S)
    last = None if whole.until is None else begin_of(whole.until, DAY_S)
    if first is not None and last is not None and first > last:
        ranges = [(FIVE_MINUTES_S, whole)]
    else:
        ranges = [(DAY_S, Span(first, last))]
        ranges += [(FIVE_MINUTES_S, Span(whole.since, first))] if first is not None else []
        ranges += [(FIVE_MINUTES_S, Span(last, whole.until))] if last is not None else []
    mine = sa.select(*columns).where(table.c.kind == of.kind.value, table.c.name == of.name)
    return sa.union_all(
        *(mine.where(table.c.period_s == period_s, *_between(table.c.since, span)) for period_s, span in ranges)
    ).subquery()


def _totals(rows: sa.Subquery, keys: int) -> sa.Select[*tuple[Any, ...]]:
    columns = list(rows.c)
    return sa.select(*columns[:keys], *map(sa.func.sum, columns[keys:])).group_by(*columns[:keys])


def _between(column: sa.ColumnElement[datetime], span: Span) -> list[sa.ColumnElement[bool]]:
    bounds = []
    if span.since is not None:
        bounds.append(column >= span.since)
    if span.until is not None:
        bounds.append(column < span.until)
    return bounds


def _merged(found: Iterable[RestartSum]) -> list[RestartSum]:
    sums: dict[tuple[RestartState, Cause], list[int]] = {}
    for one in found:
        amounts = (one.restarts, one.started, one.shadow, one.writes, one.cycles)
        kept = sums.setdefault((one.state, one.cause), [0] * len(amounts))
        sums[one.state, one.cause] = [before + more for before, more in zip(kept, amounts, strict=True)]
    return [_sum(state, cause, amounts) for (state, cause), amounts in sums.items()]


def _sum(state: RestartState, cause: Cause, amounts: Sequence[Any]) -> RestartSum:
    count, started, shadow, writes, cycles = map(int, amounts)
    return RestartSum(
        state=state, cause=cause, restarts=count, started=started, shadow=shadow, writes=writes, cycles=cycles
    )
