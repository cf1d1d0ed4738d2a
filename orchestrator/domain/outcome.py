"""What the end of a cycle leads to: success, retry, give-up, abandonment, or a result that came too late."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.evolve import apply
from orchestrator.domain.policy import Policy
from orchestrator.domain.state import UnsettledRestart, WorkspaceState

_GIVE_UP_BACKOFF_MOST_MS = 3_600_000
_MOST_DOUBLINGS = 40


def settle(
    state: WorkspaceState, command: cmd.FinishCycle | cmd.ShutDownCycle, policy: Policy, now: datetime
) -> list[ev.EventData]:
    """Return what a worker's report leads to.

    While the cycle is open and the fence current, a result counts even after the lease (S3); otherwise
    it is recorded and changes nothing.
    """
    restart = state.restart
    current = restart is not None and restart.cycle is not None and restart.cycle.id == command.cycle
    if restart is None or not current or command.fence != state.fence:
        return [_too_late(state, command)]
    if isinstance(command, cmd.ShutDownCycle):
        return [abandon(restart, state.fence, ev.Abandonment.SHUTDOWN)]
    if isinstance(command.result, cmd.Success):
        return [_succeeded(state, restart, command.result, now)]
    return _failed(state, restart, command.result, policy, now)


def abandon(restart: UnsettledRestart, fence: int, reason: ev.Abandonment) -> ev.CycleAbandoned:
    """Return the abandonment of the restart's open cycle."""
    return ev.CycleAbandoned(
        restart=restart.id, cycle=restart.cycle.id if restart.cycle else "", fence=fence, reason=reason
    )


def bury(state: WorkspaceState, command: cmd.AbandonDead, policy: Policy, now: datetime) -> list[ev.EventData]:
    """Return what the death of the cycle's worker leads to; nothing if the cycle is not the open one any more."""
    restart = state.restart
    if restart is None or restart.cycle is None or (restart.cycle.id, state.fence) != (command.cycle, command.fence):
        return []
    return without_result(state, restart, ev.Abandonment.WORKER_DIED, policy, now)


def without_result(
    state: WorkspaceState, restart: UnsettledRestart, reason: ev.Abandonment, policy: Policy, now: datetime
) -> list[ev.EventData]:
    """Return the abandonment of an open cycle that counts as an attempt, and the give-up if it was the last."""
    abandoned = abandon(restart, state.fence, reason)
    after = apply(state, abandoned, at=now, position=state.last_position, policy=policy)
    return [abandoned, *give_up_if_spent(after, policy, now)]


def give_up_if_spent(state: WorkspaceState, policy: Policy, now: datetime) -> list[ev.EventData]:
    """Return the give-up of a restart whose attempts are spent; nothing while some are left."""
    if state.restart is None or state.restart.spent < policy.max_attempts:
        return []
    return [_give_up(state, state.restart, policy, now)]


def retry_backoff_ms(spent: int, policy: Policy, jitter: float) -> int:
    """Return how long the next attempt waits after ``spent`` failed ones: full jitter, doubling, capped."""
    doubled: int = policy.retry_backoff_ms * 2 ** min(spent - 1, _MOST_DOUBLINGS)
    ceiling = min(policy.retry_backoff_max_ms, doubled)
    return int(ceiling * jitter)


def give_up_backoff_ms(give_ups: int, policy: Policy) -> int:
    """Return how long a give-up waits after ``give_ups`` earlier ones in a row: doubling, at most 1 h."""
    most = max(_GIVE_UP_BACKOFF_MOST_MS, policy.give_up_backoff_ms)
    doubled: int = policy.give_up_backoff_ms * 2 ** min(give_ups, _MOST_DOUBLINGS)
    return min(most, doubled)


def _too_late(state: WorkspaceState, command: cmd.FinishCycle | cmd.ShutDownCycle) -> ev.LateResultRejected:
    if isinstance(command, cmd.ShutDownCycle):
        result = "shutdown"
    else:
        result = "succeeded" if isinstance(command.result, cmd.Success) else f"failed: {command.result.message}"
    return ev.LateResultRejected(
        restart=command.restart, cycle=command.cycle, fence=command.fence, current_fence=state.fence, result=result
    )


def _succeeded(
    state: WorkspaceState, restart: UnsettledRestart, result: cmd.Success, now: datetime
) -> ev.CycleSucceeded:
    return ev.CycleSucceeded(
        restart=restart.id,
        cycle=restart.cycle.id if restart.cycle else "",
        fence=state.fence,
        writes=state.folded.writes.count if state.folded.writes else 0,
        duration_ms=_duration_ms(restart, now),
        generation_before=result.generation_before,
        generation_after=result.generation_after,
        verified=result.generation_after is not None and result.generation_after != result.generation_before,
        shadow=False,
        output=result.output,
    )


def _failed(
    state: WorkspaceState, restart: UnsettledRestart, result: cmd.Failure, policy: Policy, now: datetime
) -> list[ev.EventData]:
    spent = restart.spent + 1
    gives_up = result.error_kind is ev.ErrorKind.PERMANENT or spent >= policy.max_attempts
    waits_ms = (
        0
        if state.window.requests and state.window.requests.manual_at
        else retry_backoff_ms(spent, policy, result.jitter)
    )
    failed = ev.CycleFailed(
        restart=restart.id,
        cycle=restart.cycle.id if restart.cycle else "",
        fence=state.fence,
        duration_ms=_duration_ms(restart, now),
        error_kind=result.error_kind,
        message=result.message,
        retry_at=None if gives_up else now + timedelta(milliseconds=waits_ms),
    )
    if not gives_up:
        return [failed]
    after = apply(state, failed, at=now, position=state.last_position, policy=policy)
    return [failed, _give_up(after, after.restart or restart, policy, now)]


def _give_up(state: WorkspaceState, restart: UnsettledRestart, policy: Policy, now: datetime) -> ev.RestartGaveUp:
    waits = timedelta(milliseconds=give_up_backoff_ms(state.give_ups, policy))
    return ev.RestartGaveUp(
        restart=restart.id, attempts=restart.cycles, next_try_at=now + waits, to_position=restart.to_position
    )


def _duration_ms(restart: UnsettledRestart, now: datetime) -> int:
    if restart.cycle is None:
        return 0
    return int((now - restart.cycle.started_at) / timedelta(milliseconds=1))
