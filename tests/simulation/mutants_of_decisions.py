"""Defects planted in the pure core: what is decided, and what an event does to the state."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from orchestrator.domain import commands as cmd
from orchestrator.domain import decide, due, evolve, outcome
from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action, Edge, Policy
from orchestrator.domain.state import Folded, UnsettledRestart, Window, WorkspaceState
from orchestrator.service import append, claim, fold
from tests.simulation.planting import Planting

replace = msgspec.structs.replace
_settle, _started, _file_written, _due = outcome.settle, decide._started, evolve._file_written, due.due
_failed, _gave_up, _evolve_started, _may_start = outcome._failed, evolve._gave_up, evolve._started, decide.may_start
_rescue, _fold = decide._rescue, decide._fold
_evolve_succeeded, _evolve_failed = evolve._succeeded, evolve._failed


def no_fence_at_record(planting: Planting) -> None:
    def settle(
        state: WorkspaceState, command: cmd.FinishCycle | cmd.ShutDownCycle, policy: Policy, now: datetime
    ) -> list[ev.EventData]:
        if state.cycle is not None:
            command = (
                cmd.ShutDownCycle(restart=command.restart, cycle=state.cycle.id, fence=state.fence)
                if isinstance(command, cmd.ShutDownCycle)
                else cmd.FinishCycle(
                    restart=command.restart, cycle=state.cycle.id, fence=state.fence, result=command.result
                )
            )
        return _settle(state, command, policy, now)

    planting.name(decide, "settle", settle)


def no_claim_check(planting: Planting) -> None:
    def may_start(state: WorkspaceState, policy: Policy, now: datetime, capacity: cmd.Capacity) -> bool:
        if state.cycle is None:
            return _may_start(state, policy, now, capacity)
        return state.last_start_at is not None and now > state.last_start_at and state.hold is None

    def ready_at(state: WorkspaceState) -> datetime | None:
        if state.restart is None or state.hold is not None or state.removed:
            return None
        return state.restart.ready_at

    planting.name(decide, "may_start", may_start)
    planting.name(claim, "may_start", may_start)
    planting.name(WorkspaceState, "ready_at", property(ready_at))


def no_re_stamp(planting: Planting) -> None:
    def started(
        state: WorkspaceState, restart: UnsettledRestart, command: cmd.StartCycle, policy: Policy, now: datetime
    ) -> ev.CycleStarted:
        fresh = _started(state, restart, command, policy, now)
        if command.iteration == 1 or state.last_start_at is None:
            return fresh
        return replace(fresh, started_at=state.last_start_at)

    planting.name(decide, "_started", started)


def pending_cleared_at_start(planting: Planting) -> None:
    def started(state: WorkspaceState, data: ev.CycleStarted, at: datetime, position: int) -> WorkspaceState:
        after = _evolve_started(state, data, at, position)
        return replace(after, folded=Folded(), settled_to=data.to_position)

    planting.effect(ev.CycleStarted, started)


def pending_cleared_at_finish(planting: Planting) -> None:
    def succeeded(state: WorkspaceState, data: ev.CycleSucceeded, at: datetime, position: int) -> WorkspaceState:
        after = _evolve_succeeded(state, data, at, position)
        return replace(after, window=Window(), settled_to=state.last_position)

    planting.effect(ev.CycleSucceeded, succeeded)


def coverage_fixed_at_finish(planting: Planting) -> None:
    succeeded_before = outcome._succeeded

    def succeeded(
        state: WorkspaceState, restart: UnsettledRestart, result: cmd.Success, now: datetime
    ) -> ev.CycleSucceeded:
        return replace(succeeded_before(state, restart, result, now), writes=state.pending_writes)

    planting.name(outcome, "_succeeded", succeeded)
    pending_cleared_at_finish(planting)


def no_lease_rescue(planting: Planting) -> None:
    def rescue(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> list[ev.EventData]:
        return []

    planting.name(decide, "_rescue", rescue)


def rescued_late(planting: Planting) -> None:
    def rescue(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> list[ev.EventData]:
        if command.lease_until is not None and now < command.lease_until + timedelta(seconds=10):
            return []
        return _rescue(state, command, policy, now)

    planting.name(decide, "_rescue", rescue)


def folded_late(planting: Planting) -> None:
    def fold(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> list[ev.EventData]:
        return _fold(state, command, policy, now - timedelta(seconds=4))

    planting.name(decide, "_fold", fold)


def no_max_wait(planting: Planting) -> None:
    planting.name(due, "max_wait_ends", lambda writes, policy: None)


def no_quiet(planting: Planting) -> None:
    planting.name(due, "quiet_ends", lambda writes, policy: writes.all.first_at)


def no_max_count(planting: Planting) -> None:
    planting.name(due, "_max_count_at", lambda writes, policy: None)


def no_spacing(planting: Planting) -> None:
    planting.name(due, "spacing_ends", lambda state, policy: None)


def backoff_ignored(planting: Planting) -> None:
    def failed(state: WorkspaceState, data: ev.CycleFailed, at: datetime, position: int) -> WorkspaceState:
        return _evolve_failed(state, replace(data, retry_at=at), at, position)

    planting.effect(ev.CycleFailed, failed)


def give_up_loses_writes(planting: Planting) -> None:
    def gave_up(state: WorkspaceState, data: ev.RestartGaveUp, at: datetime, position: int) -> WorkspaceState:
        after = _gave_up(state, data, at, position)
        return replace(after, folded=Folded(), next_try=None, settled_to=state.last_position)

    planting.effect(ev.RestartGaveUp, gave_up)


def old_judged_with_new(planting: Planting) -> None:
    def gave_up(state: WorkspaceState, data: ev.RestartGaveUp, at: datetime, position: int) -> WorkspaceState:
        return _gave_up(evolve._with_requests_alone(state), data, at, position)

    planting.effect(ev.RestartGaveUp, gave_up)


def next_try_waits_for_newer(planting: Planting) -> None:
    def gave_up(state: WorkspaceState, data: ev.RestartGaveUp, at: datetime, position: int) -> WorkspaceState:
        after = _gave_up(state, data, at, position)
        return replace(after, next_try=after.next_try and replace(after.next_try, anyway=False))

    planting.effect(ev.RestartGaveUp, gave_up)


def no_next_try(planting: Planting) -> None:
    def gave_up(state: WorkspaceState, data: ev.RestartGaveUp, at: datetime, position: int) -> WorkspaceState:
        return replace(_gave_up(state, data, at, position), next_try=None)

    planting.effect(ev.RestartGaveUp, gave_up)


def cancel_leaves_writes(planting: Planting) -> None:
    cancel_before = decide._cancel

    def cancel(state: WorkspaceState, command: cmd.Cancel) -> list[ev.EventData]:
        return cancel_before(state, command)[:1]

    planting.name(decide, "_cancel", cancel)


def removal_leaves_writes(planting: Planting) -> None:
    remove_before = decide._remove

    def remove(state: WorkspaceState, reason: str) -> list[ev.EventData]:
        return [data for data in remove_before(state, reason) if not isinstance(data, ev.WritesWaived)]

    planting.name(decide, "_remove", remove)


def probe_not_suppressed(planting: Planting) -> None:
    planting.name(decide, "_suppression", lambda state, policy, now: None)


def hold_ignored_by_fold(planting: Planting) -> None:
    def ignoring(state: WorkspaceState, policy: Policy) -> due.Due | None:
        return _due(replace(state, hold=None), policy)

    for module in (due, decide, append, fold):
        planting.name(module, "due", ignoring)


def hold_ignored_by_start(planting: Planting) -> None:
    def ready_at(state: WorkspaceState) -> datetime | None:
        if state.restart is None or state.restart.cycle is not None or state.removed:
            return None
        return state.restart.ready_at

    planting.name(WorkspaceState, "ready_at", property(ready_at))


def leading_edge_drops_tail(planting: Planting) -> None:
    def file_written(
        state: WorkspaceState, data: ev.FileWritten, at: datetime, position: int, policy: Policy
    ) -> WorkspaceState:
        served = state.restart is not None or state.window.writes is not None
        if policy.edge is Edge.LEADING and served and data.action is not Action.RECORD:
            return state
        return _file_written(state, data, at, position, policy)

    planting.name(evolve, "_file_written", file_written)


def two_unsettled(planting: Planting) -> None:
    def ignoring(state: WorkspaceState, policy: Policy) -> due.Due | None:
        if state.cycle is not None or not state.window.writes:
            return _due(state, policy)
        return _due(replace(state, restart=None), policy)

    for module in (due, decide, append, fold):
        planting.name(module, "due", ignoring)
