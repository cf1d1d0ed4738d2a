"""Writes, requests and probes: what comes in, and whether a probe was rightly suppressed (S9)."""

from __future__ import annotations

import msgspec

from orchestrator.audit.verify import event_data as data_of
from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Workspace
from orchestrator.audit.verify.lines import Envelope
from orchestrator.audit.verify.report import Promise

_MS = 1_000
_file_written = msgspec.json.Decoder(data_of.FileWritten).decode
_requested = msgspec.json.Decoder(data_of.RestartRequested).decode
_suppressed = msgspec.json.Decoder(data_of.ProbeSuppressed).decode


def file_written(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a write in: 85 % of a log, so nothing is done here that can be done at the fold."""
    data = _file_written(event.data)
    judge.ledger.accepted += 1
    if data.rule is not None or data.action != "restart":
        _check_rule(judge, workspace, event, data)
    if data.action == "record":
        judge.ledger.recorded += 1
        return
    position, times = event.position, workspace.times
    if len(times) == workspace.folded:
        workspace.opened_idle = (
            not times and not workspace.requests and workspace.restart is None and not workspace.held_position
        )
    times.append(at)
    workspace.writes.append(position)
    workspace.queues = 0
    if data.action == "restart":
        workspace.full_position = position
    if data.quiet_ms is not None or data.max_wait_ms is not None:
        workspace.ruled[position] = (_us(data.quiet_ms), _us(data.max_wait_ms))


def _check_rule(judge: Judge, workspace: Workspace, event: Envelope, data: data_of.FileWritten) -> None:
    """Whatever a path matches, the rule that a write names was in force then, and says what the write does."""
    in_force = judge.policies.in_force(workspace)
    if in_force is None or not judge.ledger.has_all_policies:
        return
    if (data.rule, data.action, data.quiet_ms, data.max_wait_ms) not in in_force.rules:
        against = max(in_force.position, workspace.policy_position)
        text = f"a write is to {data.action} by the path rule {data.rule!r}, and no such rule is in force"
        judge.broken(Promise.S9, workspace, (against, event.position), text)


def restart_requested(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a request in."""
    data = _requested(event.data)
    if data.trigger == "probe":
        _check_suppression(judge, workspace, event, at, None)
        workspace.probe_at = at if workspace.probe_at is None else workspace.probe_at
    elif data.trigger == "mutation":
        workspace.mutation_at = at if workspace.mutation_at is None else workspace.mutation_at
    else:
        workspace.manual_at = at if workspace.manual_at is None else workspace.manual_at
        workspace.manual_position = event.position
        restart = workspace.restart
        if restart is not None and restart.retrying and restart.open is None:
            restart.ready_at = min(restart.ready_at, at)
    workspace.requests.append(event.position)
    workspace.request_times.append(at)
    workspace.queues = 0


def probe_suppressed(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Compare the reason with the state."""
    _check_suppression(judge, workspace, event, at, _suppressed(event.data).reason)


def _check_suppression(judge: Judge, workspace: Workspace, event: Envelope, at: int, said: str | None) -> None:
    right = _suppressions(judge, workspace, at)
    if said in right:
        return
    wanted = " or ".join(_spelled(reason) for reason in right)
    against = _evidence(workspace)
    judge.broken(
        Promise.S9, workspace, (against, event.position), f"a probe is {_spelled(said)}, but must be {wanted} here"
    )


def _suppressions(judge: Judge, workspace: Workspace, at: int) -> tuple[str | None, ...]:
    """Return what may rightly become of a probe; two answers where the log does not hold ``settle``."""
    restart = workspace.restart
    if restart is not None and restart.open is not None:
        return ("cycle_running",)
    if workspace.held_position:
        return ("held",)
    rest = "restart_pending" if workspace.pending or restart is not None else None
    if workspace.last_end is None:
        return (rest,)
    in_force = judge.policies.in_force(workspace)
    if in_force is None or in_force.numbers.settle_ms is None:
        return ("settling", rest)
    settling = at < workspace.last_end + in_force.numbers.settle_ms * _MS
    return ("settling",) if settling else (rest,)


def _evidence(workspace: Workspace) -> int:
    """Return the position of what decides about a probe."""
    restart = workspace.restart
    if restart is not None and restart.open is not None:
        return restart.open.position
    return workspace.held_position or (restart.position if restart is not None else workspace.last_pending)


def _spelled(reason: str | None) -> str:
    return "taken as a request" if reason is None else f"suppressed as {reason}"


def _us(duration_ms: int | None) -> int | None:
    return None if duration_ms is None else duration_ms * _MS
