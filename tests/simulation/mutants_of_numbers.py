"""Defects in the rules of CONTRACT section 2 that only a second reading of them finds: too late, too far, misread."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from orchestrator.domain import commands as cmd
from orchestrator.domain import decide, due, evolve, outcome
from orchestrator.domain import events as ev
from orchestrator.domain.due import Due
from orchestrator.domain.policy import Mode, Policy
from orchestrator.domain.state import OpenWrites, UnsettledRestart, WorkspaceState
from tests.simulation.planting import Planting

replace = msgspec.structs.replace
Events = list[ev.EventData]
_started, _queue, _release_passed, _suppression = (
    decide._started,
    decide._queue,
    decide._release_passed,
    decide._suppression,
)
_failed, _settle, _requested, _registered = outcome._failed, outcome.settle, evolve._requested, evolve._registered
_succeeded = evolve._succeeded


def hold_never_ends(planting: Planting) -> None:
    def release_passed(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> Events:
        return []

    planting.name(decide, "_release_passed", release_passed)


def hold_ends_with_cycle(planting: Planting) -> None:
    """A look at a held workspace ends its hold, and there is one in the transaction of every cycle's end."""

    def release_passed(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> Events:
        until = state.hold.until if state.hold is not None else None
        return _release_passed(state, command, policy, max(now, until or now))

    planting.name(decide, "_release_passed", release_passed)


def manual_wakes_no_retry(planting: Planting) -> None:
    def requested(state: WorkspaceState, data: ev.RestartRequested, at: datetime, position: int) -> WorkspaceState:
        return replace(_requested(state, data, at, position), restart=state.restart)

    planting.effect(ev.RestartRequested, requested)


def manual_waits_for_backoff(planting: Planting) -> None:
    def failed(
        state: WorkspaceState, restart: UnsettledRestart, result: cmd.Failure, policy: Policy, now: datetime
    ) -> Events:
        deaf = replace(state, window=replace(state.window, requests=None))
        return _failed(deaf, restart, result, policy, now)

    planting.name(outcome, "_failed", failed)


def backoff_uncapped(planting: Planting) -> None:
    def backoff_ms(spent: int, policy: Policy, jitter: float) -> int:
        doubled: int = policy.retry_backoff_ms * 2 ** min(spent - 1, 20)
        return int(doubled * jitter)

    planting.name(outcome, "retry_backoff_ms", backoff_ms)


def backoff_doubled_at_once(planting: Planting) -> None:
    def backoff_ms(spent: int, policy: Policy, jitter: float) -> int:
        doubled: int = policy.retry_backoff_ms * 2**spent
        return int(min(policy.retry_backoff_max_ms, doubled) * jitter)

    planting.name(outcome, "retry_backoff_ms", backoff_ms)


def permanent_error_retried(planting: Planting) -> None:
    def failed(
        state: WorkspaceState, restart: UnsettledRestart, result: cmd.Failure, policy: Policy, now: datetime
    ) -> Events:
        unknown = cmd.Failure(error_kind=ev.ErrorKind.UNKNOWN, message=result.message, jitter=result.jitter)
        return _failed(state, restart, unknown, policy, now)

    planting.name(outcome, "_failed", failed)


def late_result_unrecorded(planting: Planting) -> None:
    def settle(
        state: WorkspaceState, command: cmd.FinishCycle | cmd.ShutDownCycle, policy: Policy, now: datetime
    ) -> Events:
        found = _settle(state, command, policy, now)
        return [data for data in found if not isinstance(data, ev.LateResultRejected)]

    planting.name(decide, "settle", settle)


def shutdown_counts(planting: Planting) -> None:
    def abandoned(state: WorkspaceState, data: ev.CycleAbandoned, at: datetime, position: int) -> WorkspaceState:
        return evolve._ended_without_success(state, at, ready_at=at, retrying=False, spent=1)

    planting.effect(ev.CycleAbandoned, abandoned)


def worker_died_is_free(planting: Planting) -> None:
    def abandoned(state: WorkspaceState, data: ev.CycleAbandoned, at: datetime, position: int) -> WorkspaceState:
        spent = 1 if data.reason is ev.Abandonment.LEASE_EXPIRED else 0
        return evolve._ended_without_success(state, at, ready_at=at, retrying=False, spent=spent)

    planting.effect(ev.CycleAbandoned, abandoned)


def shutdown_waits(planting: Planting) -> None:
    def abandoned(state: WorkspaceState, data: ev.CycleAbandoned, at: datetime, position: int) -> WorkspaceState:
        expired = data.reason is ev.Abandonment.LEASE_EXPIRED
        ready_at = at if expired else at + timedelta(seconds=5)
        return evolve._ended_without_success(state, at, ready_at=ready_at, retrying=False, spent=1 if expired else 0)

    planting.effect(ev.CycleAbandoned, abandoned)


def spacing_from_end(planting: Planting) -> None:
    def spacing_ends(state: WorkspaceState, policy: Policy) -> datetime | None:
        end = state.last_end_at
        return None if end is None else end + timedelta(milliseconds=policy.min_interval_ms)

    planting.name(due, "spacing_ends", spacing_ends)


def ties_go_to_the_last(planting: Planting) -> None:
    def window_due(state: WorkspaceState, policy: Policy) -> Due | None:
        spaced = due.spacing_ends(state, policy)
        moved = [
            Due(at=at if cause is ev.Cause.MANUAL or spaced is None else max(at, spaced), cause=cause)
            for cause, at in due._candidates(state, policy)
            if at is not None
        ]
        return min(moved, key=lambda item: (item.at, -due._PRECEDENCE[item.cause]), default=None)

    planting.name(due, "window_due", window_due)


def rule_quiet_ends_first(planting: Planting) -> None:
    def quiet_ends(writes: OpenWrites, policy: Policy) -> datetime | None:
        ends = [writes.quiet.rule_until]
        if writes.quiet.policy_from is not None:
            ends.append(writes.quiet.policy_from + timedelta(milliseconds=policy.quiet_ms))
        return min((end for end in ends if end is not None), default=None)

    planting.name(due, "quiet_ends", quiet_ends)


def mode_read_at_queue(planting: Planting) -> None:
    shadows: dict[str, bool] = {}

    def queue(state: WorkspaceState, command: cmd.Tick, policy: Policy, found: Due) -> ev.RestartQueued:
        shadows[command.restart_id] = policy.mode is Mode.SHADOW
        return _queue(state, command, policy, found)

    def started(
        state: WorkspaceState, restart: UnsettledRestart, command: cmd.StartCycle, policy: Policy, now: datetime
    ) -> ev.CycleStarted:
        return replace(_started(state, restart, command, policy, now), shadow=shadows.get(restart.id, False))

    planting.name(decide, "_queue", queue)
    planting.name(decide, "_started", started)


def retry_keeps_range(planting: Planting) -> None:
    def started(
        state: WorkspaceState, restart: UnsettledRestart, command: cmd.StartCycle, policy: Policy, now: datetime
    ) -> ev.CycleStarted:
        fresh = _started(state, restart, command, policy, now)
        return replace(fresh, to_position=restart.to_position) if restart.cycles else fresh

    planting.name(decide, "_started", started)


def fence_kept_by_retry(planting: Planting) -> None:
    def started(
        state: WorkspaceState, restart: UnsettledRestart, command: cmd.StartCycle, policy: Policy, now: datetime
    ) -> ev.CycleStarted:
        fresh = _started(state, restart, command, policy, now)
        return replace(fresh, fence=state.fence) if restart.cycles else fresh

    planting.name(decide, "_started", started)


def settle_from_start(planting: Planting) -> None:
    def suppression(state: WorkspaceState, policy: Policy, now: datetime) -> ev.Suppression | None:
        return _suppression(replace(state, last_end_at=state.last_start_at), policy, now)

    planting.name(decide, "_suppression", suppression)


def give_ups_never_reset(planting: Planting) -> None:
    def succeeded(state: WorkspaceState, data: ev.CycleSucceeded, at: datetime, position: int) -> WorkspaceState:
        return replace(_succeeded(state, data, at, position), give_ups=state.give_ups)

    planting.effect(ev.CycleSucceeded, succeeded)


def registered_anew(planting: Planting) -> None:
    def registered(state: WorkspaceState, data: ev.WorkspaceRegistered, at: datetime, position: int) -> WorkspaceState:
        return replace(_registered(state, data, at, position), fence=0, last_start_at=None)

    planting.effect(ev.WorkspaceRegistered, registered)
