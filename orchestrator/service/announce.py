"""One searchable log line for every event, after its commit; the event's name is the line's name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import structlog

from orchestrator.domain import access_events as acc
from orchestrator.domain import events as ev
from orchestrator.domain.encoding import format_instant, to_plain
from orchestrator.domain.state import WorkspaceState

_log = structlog.get_logger("orchestrator")

_NAMES = {
    ev.RestartQueued: "restart.queued",
    ev.CycleStarted: "cycle.started",
    ev.CycleSucceeded: "cycle.succeeded",
    ev.CycleFailed: "cycle.failed",
    ev.CycleAbandoned: "cycle.abandoned",
    ev.LateResultRejected: "cycle.late_result_rejected",
    ev.RestartGaveUp: "restart.gave_up",
    ev.RestartCancelled: "restart.cancelled",
    ev.RestartRequested: "restart.requested",
    ev.ProbeSuppressed: "probe.suppressed",
    ev.WorkspaceRegistered: "workspace.registered",
    ev.WorkspaceChanged: "workspace.changed",
    ev.WorkspaceHeld: "workspace.held",
    ev.WorkspaceReleased: "workspace.released",
    ev.WorkspaceRemoved: "workspace.removed",
    ev.WritesWaived: "writes.waived",
    ev.PolicyChanged: "policy.changed",
    ev.ProcessExited: "process.exited",
    ev.ExecutorAway: "executor.away",
    ev.ExecutorBack: "executor.back",
    ev.ClockRegressed: "clock.regressed",
    acc.KeyCreated: "key.created",
    acc.KeyRevoked: "key.revoked",
    acc.AccessDenied: "access.denied",
    acc.ReadsCounted: "access.reads",
    acc.DataExported: "access.exported",
}
_LOUD = (
    ev.CycleFailed,
    ev.CycleAbandoned,
    ev.LateResultRejected,
    ev.RestartGaveUp,
    ev.ProcessExited,
    ev.ExecutorAway,
    ev.ClockRegressed,
)
_QUIET_FIELDS = frozenset({"labels", "target", "policy", "output", "digest"})
"""Left out of the lines: targets may hold secrets, output may be long, a digest says nobody anything. The log's events
hold them."""


def announce(recorded: Iterable[ev.Recorded]) -> None:
    """Write one line for each event."""
    for event in recorded:
        loud = isinstance(event.data, _LOUD)
        if not _log.is_enabled_for(logging.WARNING if loud else logging.INFO):
            continue
        fields = {key: _first_line(value) for key, value in to_plain(event.data).items() if key not in _QUIET_FIELDS}
        fields |= _lengths(event.data)
        line = _log.warning if loud else _log.info
        line(_NAMES.get(type(event.data), event.type), workspace=event.workspace, position=event.position, **fields)


def announce_writes(
    events: Sequence[ev.Recorded], decision: str, due_at: datetime | None, state: WorkspaceState
) -> None:
    """Write the line of the writes of one workspace that came together and led to the same."""
    last = events[-1]
    if not isinstance(last.data, ev.FileWritten) or not _log.is_enabled_for(logging.INFO):
        return
    _log.info(
        f"write.{decision}",
        workspace=state.workspace,
        writes=len(events),
        path=last.data.path,
        position=last.position,
        pending=state.pending_writes,
        restart=state.restart.id if state.restart else None,
        due_at=format_instant(due_at) if due_at else None,
        actor=last.actor,
    )


def _first_line(value: object) -> object:
    """Cut a text to its first line: an executor's message goes on with what its command printed."""
    return value.partition("\n")[0] if isinstance(value, str) else value


def _lengths(data: ev.EventData) -> dict[str, int]:
    """Return lengths of time that the event implies, in milliseconds."""
    if isinstance(data, ev.RestartQueued):
        return {"window_ms": (data.due_at - data.opened_at) // timedelta(milliseconds=1)}
    if isinstance(data, ev.CycleStarted) and data.previous_started_at is not None:
        return {"since_previous_start_ms": (data.started_at - data.previous_started_at) // timedelta(milliseconds=1)}
    return {}
