"""What a stretch of the log adds to the kept sums: its events, read once, and the rows that they changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from orchestrator.domain.events import (
    CycleAbandoned,
    CycleFailed,
    CycleSucceeded,
    FileWritten,
    RestartCancelled,
    RestartGaveUp,
    RestartQueued,
    WorkspaceChanged,
    WorkspaceRegistered,
)
from orchestrator.ports.sums import (
    DAY_S,
    FIVE_MINUTES_S,
    SUMS,
    Amounts,
    Counted,
    Of,
    Period,
    SumKind,
    SumsToAdd,
)
from orchestrator.storage.sql.schema import counters, events, restarts, summed_workspaces, workspaces
from orchestrator.storage.sql.statements import Statements

EVERY = Of(SumKind.ALL, "")
SETTLING = tuple(kind.type_name() for kind in (CycleSucceeded, RestartGaveUp, RestartCancelled))
FAILING = tuple(kind.type_name() for kind in (CycleFailed, CycleAbandoned, RestartGaveUp))
_REGISTERING = tuple(kind.type_name() for kind in (WorkspaceRegistered, WorkspaceChanged))
_ACTIVE = {FileWritten.type_name(): (1, 0, 0), RestartQueued.type_name(): (0, 1, 0), CycleFailed.type_name(): (0, 0, 1)}
_IDS_AT_ONCE = 5_000

Row = Mapping[str, Any]
Key = TypeVar("Key")


def sums_to_add(sql: Statements, most: int) -> SumsToAdd | None:
    """Return what the next ``most`` positions add to the sums; None: they are kept up to the last event."""
    after, last = kept_and_last(sql)
    if after >= last:
        return None
    position = min(last, after + most)
    found: list[Row] = [dict(row) for row in sql.run(_events(sql, after, position)).mappings()]
    before = _counted_before(sql, {row["workspace"] for row in found if row["workspace"] is not None})
    fleets = {name: counted.fleet for name, counted in before.items()}
    activity: dict[tuple[Of, datetime], Amounts] = {}
    settled: set[str] = set()
    failed: list[Row] = []
    for row in found:
        name, kind = row["workspace"], row["type"]
        if name is None:
            continue
        if kind in _REGISTERING:
            fleets[name] = row["fleet"]
        if kind in _ACTIVE:
            since = begin_of(row["recorded_at"], FIVE_MINUTES_S)
            for of in (EVERY, Of(SumKind.FLEET, fleets.get(name, "")), Of(SumKind.WORKSPACE, name)):
                _add(activity, (of, since), _ACTIVE[kind])
        if kind in FAILING:
            failed.append(row)
        if kind in SETTLING:
            settled.add(row["subject"])
    records = _records(sql, settled.union(row["subject"] for row in failed))
    now = _counted_now(sql, fleets, {row["workspace"] for row in found})
    return SumsToAdd(
        after=after,
        position=position,
        workspaces=now,
        backlog=_backlog(before, now),
        activity=activity,
        restarts=_restarts(record for name, record in records.items() if name in settled),
        failures=_failures(failed, records),
    )


def kept_and_last(sql: Statements) -> tuple[int, int]:
    """Return the position that the sums are kept for, and the last one."""
    kept = sa.select(counters.c.position).where(counters.c.name == SUMS).scalar_subquery()
    row = sql.run(sa.select(kept, sa.select(sa.func.max(events.c.position)).scalar_subquery())).one()
    return row[0] or 0, row[1] or 0


def begin_of(at: datetime, period_s: int) -> datetime:
    """Return when the period that holds an instant began; they are counted from 1970 on, in UTC."""
    second = int(at.timestamp())
    return datetime.fromtimestamp(second - second % period_s, UTC)


def waits() -> sa.ColumnElement[bool]:
    """Return the condition that a workspace has something pending."""
    return workspaces.c.pending_count + workspaces.c.pending_requests > 0


def _events(sql: Statements, after: int, to: int) -> sa.Select[*tuple[Any, ...]]:
    """Return the statement for the stretch; of the data only what is needed is read."""
    data = sql.json(events.c.data)
    fleet = sa.case((events.c.type.in_(_REGISTERING), data["fleet"].as_string()))
    error = sa.func.coalesce(data["error_kind"].as_string(), data["reason"].as_string())
    chosen = sa.select(
        events.c.workspace,
        events.c.type,
        events.c.subject,
        events.c.recorded_at,
        fleet.label("fleet"),
        sa.case((events.c.type.in_(FAILING), error)).label("error"),
    )
    return chosen.where(events.c.position > after, events.c.position <= to).order_by(events.c.position)


def _counted_before(sql: Statements, names: Iterable[str]) -> dict[str, Counted]:
    kept = summed_workspaces.c
    columns = (kept.workspace, kept.fleet, kept.phase, kept.pending_writes, kept.waiting)
    return {row[0]: Counted(*row[1:]) for row in _of_each(sql, sa.select(*columns), kept.workspace, names)}


def _counted_now(sql: Statements, fleets: Mapping[str, str], names: Iterable[str | None]) -> dict[str, Counted]:
    """Return what the workspaces count for now, which may be later than the stretch: what is left of it comes again."""
    columns = (workspaces.c.id, workspaces.c.phase, workspaces.c.pending_count, waits())
    known = {name for name in names if name is not None}
    return {
        name: Counted(fleet=fleets.get(name, ""), phase=phase, pending_writes=writes, waiting=int(waiting))
        for name, phase, writes, waiting in _of_each(sql, sa.select(*columns), workspaces.c.id, known)
    }


def _backlog(before: Mapping[str, Counted], now: Mapping[str, Counted]) -> dict[tuple[str, str], Amounts]:
    found: dict[tuple[str, str], Amounts] = {}
    for name, one in now.items():
        if name in before:
            was = before[name]
            _add(found, (was.fleet, was.phase), (-1, -was.pending_writes, -was.waiting))
        _add(found, (one.fleet, one.phase), (1, one.pending_writes, one.waiting))
    return {key: amounts for key, amounts in found.items() if any(amounts)}


def _records(sql: Statements, names: Iterable[str]) -> dict[str, Any]:
    of = restarts.c
    columns = (of.id, of.fleet, of.queued_at, of.state, of.cause, of.attempts, of.writes, of.shadow)
    return {row.id: row for row in _of_each(sql, sa.select(*columns), of.id, names)}


def _restarts(settled: Iterable[Any]) -> dict[tuple[Period, str, str], Amounts]:
    found: dict[tuple[Period, str, str], Amounts] = {}
    for one in settled:
        started = one.attempts > 0 and one.writes > 0
        for period in _periods(one.fleet, one.queued_at):
            _add(found, (period, one.state, one.cause), (1, int(started), int(one.shadow), one.writes, one.attempts))
    return found


def _failures(failed: Iterable[Row], records: Mapping[str, Any]) -> dict[tuple[Period, str, str], Amounts]:
    found: dict[tuple[Period, str, str], Amounts] = {}
    for row in failed:
        record = records.get(row["subject"])  # None: somebody has deleted it, which is for the verifier to say
        for period in _periods("" if record is None else record.fleet, row["recorded_at"]):
            _add(found, (period, row["type"], row["error"] or ""), (1,))
    return found


def _periods(fleet: str, at: datetime) -> Iterator[Period]:
    for of in (EVERY, Of(SumKind.FLEET, fleet)):
        for period_s in (FIVE_MINUTES_S, DAY_S):
            yield Period(of, period_s, begin_of(at, period_s))


def _add(sums: dict[Key, Amounts], key: Key, amounts: Amounts) -> None:
    kept = sums.get(key)
    sums[key] = tuple(map(sum, zip(kept, amounts, strict=True))) if kept else amounts


def _of_each(
    sql: Statements, chosen: sa.Select[*tuple[Any, ...]], column: sa.Column[str], names: Iterable[str]
) -> Iterator[Any]:
    wanted = sorted(names)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        yield from sql.run(chosen.where(column.in_(wanted[start : start + _IDS_AT_ONCE])))
