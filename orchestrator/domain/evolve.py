"""``evolve(state, event) -> state``: what each event changes. Replaying the log gives the same state (S10).

``policy`` is the one in force when the event was recorded; only ``max_count`` reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action, Policy
from orchestrator.domain.state import (
    Folded,
    Hold,
    Registration,
    RunningCycle,
    UnsettledRestart,
    Window,
    WorkspaceState,
)


def evolve(state: WorkspaceState, event: ev.Recorded, policy: Policy) -> WorkspaceState:
    """Return the state after ``event``."""
    return apply(state, event.data, at=event.recorded_at, position=event.position, policy=policy)


def apply(state: WorkspaceState, data: ev.EventData, *, at: datetime, position: int, policy: Policy) -> WorkspaceState:
    """Return the state after an event with this data, recorded ``at`` that instant and ``position``."""
    if isinstance(data, ev.FileWritten):
        return _file_written(state, data, at, position, policy)
    if data.FACT:
        return state
    change = _DECISIONS.get(type(data))
    changed = state if change is None else change(state, data, at, position)
    return replace(changed, version=state.version + 1)


def _file_written(
    state: WorkspaceState, data: ev.FileWritten, at: datetime, position: int, policy: Policy
) -> WorkspaceState:
    if data.action is Action.RECORD:
        return state
    window, writes = state.window, state.window.writes + 1
    max_count_at, max_count_of = window.max_count_at, window.max_count_of
    if writes >= policy.max_count != max_count_of:
        max_count_at = window.last_write_at if window.writes >= policy.max_count else at
        max_count_of = policy.max_count
    opened = replace(
        window,
        opened_at=window.opened_at or at,
        opened_idle=window.opened_idle if window.writes else _is_idle(state),
        writes=writes,
        reload_only=window.reload_only and data.action is Action.RELOAD,
        first_write_at=window.first_write_at or at,
        last_write_at=at,
        max_count_at=max_count_at,
        max_count_of=max_count_of,
        policy_quiet_from=at if data.quiet_ms is None else window.policy_quiet_from,
        policy_max_wait_from=(window.policy_max_wait_from or at)
        if data.max_wait_ms is None
        else window.policy_max_wait_from,
    )
    if data.quiet_ms is not None or data.max_wait_ms is not None:
        opened = _with_numbers_of_rule(opened, data, at)
    return replace(state, window=opened, last_position=position)


def _is_idle(state: WorkspaceState) -> bool:
    return not state.pending and state.restart is None and state.hold is None


def _with_numbers_of_rule(window: Window, data: ev.FileWritten, at: datetime) -> Window:
    """Keep the latest end of quiet and the earliest end of max_wait that rules set, apart from the policy's."""
    quiet_until, max_wait_until = window.rule_quiet_until, window.rule_max_wait_until
    if data.quiet_ms is not None:
        until = at + timedelta(milliseconds=data.quiet_ms)
        quiet_until = max(until, quiet_until or until)
    if data.max_wait_ms is not None:
        until = at + timedelta(milliseconds=data.max_wait_ms)
        max_wait_until = min(until, max_wait_until or until)
    return replace(window, rule_quiet_until=quiet_until, rule_max_wait_until=max_wait_until)


def _registered(
    state: WorkspaceState, data: ev.WorkspaceRegistered | ev.WorkspaceChanged, at: datetime, position: int
) -> WorkspaceState:
    registration = Registration(
        fleet=data.fleet, labels=data.labels, executor=data.executor, target=data.target, policy=data.policy
    )
    return replace(state, registration=registration, removed=False)


def _held(state: WorkspaceState, data: ev.WorkspaceHeld, at: datetime, position: int) -> WorkspaceState:
    return replace(state, hold=Hold(reason=data.reason, until=data.until))


def _released(state: WorkspaceState, data: ev.WorkspaceReleased, at: datetime, position: int) -> WorkspaceState:
    return replace(state, hold=None)


def _removed(state: WorkspaceState, data: ev.WorkspaceRemoved, at: datetime, position: int) -> WorkspaceState:
    return replace(state, removed=True, hold=None, give_ups=0, next_try_at=None)


def _requested(state: WorkspaceState, data: ev.RestartRequested, at: datetime, position: int) -> WorkspaceState:
    window, restart = state.window, state.restart
    asked: dict[str, Any] = {
        ev.Trigger.MANUAL: {"manual_at": window.manual_at or at},
        ev.Trigger.MUTATION: {"mutation_at": window.mutation_at or at},
        ev.Trigger.PROBE: {"probe_at": window.probe_at or at},
    }[data.trigger]
    if restart is not None and restart.retrying and data.trigger is ev.Trigger.MANUAL:
        restart = replace(restart, ready_at=min(restart.ready_at, at))
    opened = replace(window, opened_at=window.opened_at or at, requests=window.requests + 1, **asked)
    return replace(state, window=opened, restart=restart, last_position=position)


def _fold_window(state: WorkspaceState) -> WorkspaceState:
    """Move the window into what is folded; a new, empty window begins."""
    window, folded = state.window, state.folded
    merged = Folded(
        writes=folded.writes + window.writes,
        requests=folded.requests + window.requests,
        reload_only=folded.reload_only and window.reload_only,
        opened_at=folded.opened_at or window.opened_at,
        first_write_at=folded.first_write_at or window.first_write_at,
        last_write_at=window.last_write_at or folded.last_write_at,
    )
    return replace(state, folded=merged, window=Window())


def _queued(state: WorkspaceState, data: ev.RestartQueued, at: datetime, position: int) -> WorkspaceState:
    restart = UnsettledRestart(
        id=data.restart,
        cause=data.cause,
        kind=data.kind,
        from_position=data.from_position,
        to_position=data.to_position,
        files=data.files,
        queued_at=at,
        due_at=data.due_at,
        ready_at=data.due_at,
    )
    return replace(_fold_window(state), restart=restart, next_try_at=None)


def _started(state: WorkspaceState, data: ev.CycleStarted, at: datetime, position: int) -> WorkspaceState:
    if state.restart is None:
        return state
    cycle = RunningCycle(
        id=data.cycle,
        worker=data.worker,
        attempt=data.attempt,
        iteration=data.iteration,
        started_at=data.started_at,
        lease_until=data.lease_until,
        shadow=data.shadow,
    )
    restart = replace(
        state.restart,
        kind=data.kind,
        to_position=data.to_position,
        files=data.files,
        cycles=data.attempt,
        retrying=False,
        cycle=cycle,
    )
    folded = _fold_window(state)
    return replace(folded, restart=restart, fence=data.fence, last_start_at=data.started_at, last_cycle=data.cycle)


def _succeeded(state: WorkspaceState, data: ev.CycleSucceeded, at: datetime, position: int) -> WorkspaceState:
    settled_to = state.restart.to_position if state.restart else state.settled_to
    return replace(
        state, restart=None, folded=Folded(), settled_to=settled_to, last_end_at=at, give_ups=0, next_try_at=None
    )


def _failed(state: WorkspaceState, data: ev.CycleFailed, at: datetime, position: int) -> WorkspaceState:
    return _ended_without_success(state, at, ready_at=data.retry_at or at, retrying=True, spent=1)


def _abandoned(state: WorkspaceState, data: ev.CycleAbandoned, at: datetime, position: int) -> WorkspaceState:
    spent = 1 if data.reason in (ev.Abandonment.LEASE_EXPIRED, ev.Abandonment.WORKER_DIED) else 0
    return _ended_without_success(state, at, ready_at=at, retrying=False, spent=spent)


def _ended_without_success(
    state: WorkspaceState, at: datetime, *, ready_at: datetime, retrying: bool, spent: int
) -> WorkspaceState:
    if state.restart is None:
        return state
    restart = replace(
        state.restart, cycle=None, retrying=retrying, ready_at=ready_at, spent=state.restart.spent + spent
    )
    return replace(state, restart=restart, last_end_at=at)


def _gave_up(state: WorkspaceState, data: ev.RestartGaveUp, at: datetime, position: int) -> WorkspaceState:
    """Keep everything pending; writes are judged alone from the first one after the give-up.

    A request that came after the last start was never attempted, so it stays in the window and is due
    at its own time (CONTRACT section 2, "an unserved manual request").
    """
    window = state.window
    folded = _fold_window(replace(state, window=replace(window, requests=0))).folded
    unserved = Window(
        opened_at=window.opened_at if window.requests else None,
        requests=window.requests,
        manual_at=window.manual_at,
        mutation_at=window.mutation_at,
    )
    return replace(
        state,
        restart=None,
        folded=folded,
        window=unserved,
        give_ups=state.give_ups + 1,
        next_try_at=data.next_try_at,
    )


def _cancelled(state: WorkspaceState, data: ev.RestartCancelled, at: datetime, position: int) -> WorkspaceState:
    return replace(state, restart=None)


def _waived(state: WorkspaceState, data: ev.WritesWaived, at: datetime, position: int) -> WorkspaceState:
    window = Window() if data.to_position >= state.last_position else state.window
    return replace(state, folded=Folded(), window=window, settled_to=data.to_position, next_try_at=None)


_DECISIONS: dict[type[ev.EventData], Callable[[WorkspaceState, Any, datetime, int], WorkspaceState]] = {
    ev.WorkspaceRegistered: _registered,
    ev.WorkspaceChanged: _registered,
    ev.WorkspaceHeld: _held,
    ev.WorkspaceReleased: _released,
    ev.WorkspaceRemoved: _removed,
    ev.RestartRequested: _requested,
    ev.RestartQueued: _queued,
    ev.CycleStarted: _started,
    ev.CycleSucceeded: _succeeded,
    ev.CycleFailed: _failed,
    ev.CycleAbandoned: _abandoned,
    ev.RestartGaveUp: _gave_up,
    ev.RestartCancelled: _cancelled,
    ev.WritesWaived: _waived,
}
