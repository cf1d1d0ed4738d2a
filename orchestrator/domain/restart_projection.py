"""The read model of one restart: what history and "why" read, folded from the restart's own events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.policy import Edge


class RestartState(StrEnum):
    """Where a restart stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    GAVE_UP = "gave_up"
    CANCELLED = "cancelled"


SETTLED = frozenset({RestartState.SUCCEEDED, RestartState.GAVE_UP, RestartState.CANCELLED})


class RestartProjection(Struct, frozen=True, kw_only=True):
    """One restart. ``queued_position`` is the position of its ``RestartQueued``; history is ordered by it.

    ``attempts`` counts its cycles. ``error`` is the message of the last failed cycle.
    """

    id: str
    workspace: str
    fleet: str
    state: RestartState
    cause: ev.Cause
    kind: ev.Kind
    from_position: int
    to_position: int
    writes: int
    requests: int
    files: int
    opened_at: datetime
    last_write_at: datetime | None
    due_at: datetime
    queued_at: datetime
    queued_position: int
    quiet_ms: int
    max_wait_ms: int
    max_count: int
    edge: Edge
    min_interval_ms: int
    policy_version: int
    attempts: int = 0
    shadow: bool = False
    cycle: str | None = None
    first_started_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None
    error: str | None = None


_CHANGING = (
    ev.RestartQueued
    | ev.CycleStarted
    | ev.CycleSucceeded
    | ev.CycleFailed
    | ev.CycleAbandoned
    | ev.RestartGaveUp
    | ev.RestartCancelled
)


def project(record: RestartProjection | None, event: ev.Recorded, *, fleet: str) -> RestartProjection | None:
    """Return the record after ``event``; None while the log has not queued the restart."""
    data = event.data
    if isinstance(data, ev.RestartQueued):
        return _queued(data, event, fleet)
    change = _CHANGES.get(type(data))
    return record if record is None or change is None else change(record, data, event.recorded_at)


def restart_of(data: ev.EventData) -> str | None:
    """Return the id of the restart whose record this event changes, if it changes one."""
    return data.restart if isinstance(data, _CHANGING) else None


def _queued(data: ev.RestartQueued, event: ev.Recorded, fleet: str) -> RestartProjection:
    return RestartProjection(
        id=data.restart,
        workspace=event.workspace or "",
        fleet=fleet,
        state=RestartState.QUEUED,
        cause=data.cause,
        kind=data.kind,
        from_position=data.from_position,
        to_position=data.to_position,
        writes=data.writes,
        requests=data.requests,
        files=data.files,
        opened_at=data.opened_at,
        last_write_at=data.last_write_at,
        due_at=data.due_at,
        queued_at=event.recorded_at,
        queued_position=event.position,
        quiet_ms=data.quiet_ms,
        max_wait_ms=data.max_wait_ms,
        max_count=data.max_count,
        edge=data.edge,
        min_interval_ms=data.min_interval_ms,
        policy_version=data.policy_version,
    )


def _started(record: RestartProjection, data: ev.CycleStarted, at: datetime) -> RestartProjection:
    return replace(
        record,
        state=RestartState.RUNNING,
        kind=data.kind,
        to_position=data.to_position,
        writes=data.writes,
        requests=data.requests,
        files=data.files,
        attempts=data.attempt,
        shadow=data.shadow,
        cycle=data.cycle,
        first_started_at=record.first_started_at or data.started_at,
        started_at=data.started_at,
        retry_at=None,
    )


def _succeeded(record: RestartProjection, data: ev.CycleSucceeded, at: datetime) -> RestartProjection:
    return replace(record, state=RestartState.SUCCEEDED, ended_at=at, error=None)


def _failed(record: RestartProjection, data: ev.CycleFailed, at: datetime) -> RestartProjection:
    return replace(record, state=RestartState.RETRYING, retry_at=data.retry_at, error=data.message)


def _abandoned(record: RestartProjection, data: ev.CycleAbandoned, at: datetime) -> RestartProjection:
    return replace(record, state=RestartState.QUEUED, error=f"abandoned: {data.reason.value}")


def _gave_up(record: RestartProjection, data: ev.RestartGaveUp, at: datetime) -> RestartProjection:
    return replace(record, state=RestartState.GAVE_UP, ended_at=at, retry_at=None)


def _cancelled(record: RestartProjection, data: ev.RestartCancelled, at: datetime) -> RestartProjection:
    return replace(record, state=RestartState.CANCELLED, ended_at=at, retry_at=None)


_CHANGES: dict[type[ev.EventData], Callable[[RestartProjection, Any, datetime], RestartProjection]] = {
    ev.CycleStarted: _started,
    ev.CycleSucceeded: _succeeded,
    ev.CycleFailed: _failed,
    ev.CycleAbandoned: _abandoned,
    ev.RestartGaveUp: _gave_up,
    ev.RestartCancelled: _cancelled,
}
