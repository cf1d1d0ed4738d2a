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
    Ends,
    Folded,
    Full,
    Hold,
    NextTry,
    OpenWrites,
    Registration,
    Requests,
    RunningCycle,
    UnsettledRestart,
    Window,
    WorkspaceState,
    Writes,
)

_SPENDING = frozenset({ev.Abandonment.LEASE_EXPIRED, ev.Abandonment.WORKER_DIED})
"""What an abandonment must be for its attempt to count towards ``max_attempts``."""


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
    window, earlier = state.window, state.window.writes
    write = Writes(count=1, reload_only=data.action is Action.RELOAD, first_at=at, last_at=at)
    writes = OpenWrites(
        all=write if earlier is None else earlier.all.followed_by(write),
        opened_idle=_is_idle(state) if earlier is None else earlier.opened_idle,
        quiet=_quiet(earlier.quiet if earlier else Ends(), data.quiet_ms, at),
        max_wait=_max_wait(earlier.max_wait if earlier else Ends(), data.max_wait_ms, at),
        full=_full(earlier, policy, at),
    )
    opened = replace(window, opened_at=window.opened_at or at, writes=writes)
    return replace(state, window=opened, last_position=position)


def _is_idle(state: WorkspaceState) -> bool:
    return not state.pending and state.restart is None and state.hold is None


def _quiet(earlier: Ends, own_ms: int | None, at: datetime) -> Ends:
    """Return from what the end of quiet is worked out after one more write: the one that ends last counts."""
    if own_ms is None:
        return replace(earlier, policy_from=at)
    until = at + timedelta(milliseconds=own_ms)
    return replace(earlier, rule_until=max(until, earlier.rule_until or until))


def _max_wait(earlier: Ends, own_ms: int | None, at: datetime) -> Ends:
    """Return from what the end of max_wait is worked out after one more write: the one that ends first counts."""
    if own_ms is None:
        return replace(earlier, policy_from=earlier.policy_from or at)
    until = at + timedelta(milliseconds=own_ms)
    return replace(earlier, rule_until=min(until, earlier.rule_until or until))


def _full(earlier: OpenWrites | None, policy: Policy, at: datetime) -> Full | None:
    """Return since when ``max_count`` writes wait, after one more that came ``at`` that instant.

    Where it was changed to no more than what waited, that is since the last write before the change.
    """
    waited, full = (earlier.all.count, earlier.full) if earlier else (0, None)
    if waited + 1 < policy.max_count or (full is not None and full.max_count == policy.max_count):
        return full
    before = earlier.all.last_at if earlier and waited >= policy.max_count else at
    return Full(at=before, max_count=policy.max_count)


def _registered(
    state: WorkspaceState, data: ev.WorkspaceRegistered | ev.WorkspaceChanged, at: datetime, position: int
) -> WorkspaceState:
    registration = Registration(
        fleet=data.fleet, labels=data.labels, executor=data.executor, target=data.target, policy=data.policy
    )
    return replace(state, registration=registration, registration_position=position, removed=False)


def _held(state: WorkspaceState, data: ev.WorkspaceHeld, at: datetime, position: int) -> WorkspaceState:
    return replace(state, hold=Hold(reason=data.reason, until=data.until))


def _released(state: WorkspaceState, data: ev.WorkspaceReleased, at: datetime, position: int) -> WorkspaceState:
    return replace(state, hold=None)


def _removed(state: WorkspaceState, data: ev.WorkspaceRemoved, at: datetime, position: int) -> WorkspaceState:
    return replace(state, removed=True, hold=None, give_ups=0, next_try=None)


def _requested(state: WorkspaceState, data: ev.RestartRequested, at: datetime, position: int) -> WorkspaceState:
    window, restart = state.window, state.restart
    earlier = window.requests or Requests(count=0)
    asked: dict[str, Any] = {
        ev.Trigger.MANUAL: {"manual_at": earlier.manual_at or at},
        ev.Trigger.MUTATION: {"mutation_at": earlier.mutation_at or at},
        ev.Trigger.PROBE: {"probe_at": earlier.probe_at or at},
    }[data.trigger]
    if restart is not None and restart.retrying and data.trigger is ev.Trigger.MANUAL:
        restart = replace(restart, ready_at=min(restart.ready_at, at))
    requests = replace(earlier, count=earlier.count + 1, **asked)
    opened = replace(window, opened_at=window.opened_at or at, requests=requests)
    return replace(state, window=opened, restart=restart, last_position=position)


def _fold_window(state: WorkspaceState) -> WorkspaceState:
    """Move the window into what is folded; a new, empty window begins."""
    return replace(state, folded=state.folded.with_window(state.window), window=Window())


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
    return replace(_fold_window(state), restart=restart, next_try=None)


def _started(state: WorkspaceState, data: ev.CycleStarted, at: datetime, position: int) -> WorkspaceState:
    if state.restart is None:
        return state
    cycle = RunningCycle(
        id=data.cycle,
        worker=data.worker,
        attempt=data.attempt,
        iteration=data.iteration,
        started_at=data.started_at,
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
        state, restart=None, folded=Folded(), settled_to=settled_to, last_end_at=at, give_ups=0, next_try=None
    )


def _failed(state: WorkspaceState, data: ev.CycleFailed, at: datetime, position: int) -> WorkspaceState:
    return _ended_without_success(state, at, ready_at=data.retry_at or at, retrying=True, spent=1)


def _abandoned(state: WorkspaceState, data: ev.CycleAbandoned, at: datetime, position: int) -> WorkspaceState:
    spent = 1 if data.reason in _SPENDING else 0
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
    """Keep everything pending; what no attempt has tried stays in the window and is judged alone.

    That is what came after the restart's ``to_position``, during its last attempt too.
    """
    left = state if data.to_position is not None else _with_requests_alone(state)
    return replace(
        left,
        restart=None,
        give_ups=state.give_ups + 1,
        next_try=NextTry(at=data.next_try_at, anyway=data.to_position is not None),
    )


def _with_requests_alone(state: WorkspaceState) -> WorkspaceState:
    """Fold the writes of the window, as a give-up of schema 1 was meant: only what comes after it is judged alone.

    Its requests stay in the window, and are due at their own time.
    """
    window, asked = state.window, state.window.requests
    folded = state.folded.with_window(replace(window, requests=None))
    unserved = Window(opened_at=window.opened_at, requests=replace(asked, probe_at=None)) if asked else Window()
    return replace(state, folded=folded, window=unserved)


def _cancelled(state: WorkspaceState, data: ev.RestartCancelled, at: datetime, position: int) -> WorkspaceState:
    return replace(state, restart=None)


def _waived(state: WorkspaceState, data: ev.WritesWaived, at: datetime, position: int) -> WorkspaceState:
    window = Window() if data.to_position >= state.last_position else state.window
    return replace(state, folded=Folded(), window=window, settled_to=data.to_position, next_try=None)


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
