"""``decide(state, command, policy, now) -> events``: every rule of CONTRACT section 2, pure.

Commands about a workspace as a whole are decided here; what a cycle's end leads to is in ``outcome``.
An empty list means that nothing is to be recorded. ``Conflict`` and ``NotFound`` are raised only for
commands that a person gave.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.due import Due, due
from orchestrator.domain.evolve import apply
from orchestrator.domain.outcome import abandon, bury, settle, without_result
from orchestrator.domain.policy import Mode, Policy
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Registration, UnsettledRestart, WorkspaceState
from orchestrator.errors import Conflict, InvalidInput, NotFound

Events = list[ev.EventData]


def decide(state: WorkspaceState, command: cmd.Command, policy: Policy, now: datetime) -> Events:  # noqa: C901, PLR0911 (one flat table of commands reads best)
    """Return the events that ``command`` leads to, in the order in which they are recorded.

    Raises ``NotFound`` for a workspace that is not registered, ``Conflict`` for a restart that is not
    queued or retrying, ``InvalidInput`` for a hold that ends in the past and for a probe that comes as
    a request.
    """
    match command:
        case cmd.Register(registration=registration):
            return _register(state, registration)
        case cmd.FinishCycle() | cmd.ShutDownCycle():
            return settle(state, command, policy, now)
        case cmd.AbandonDead():
            return bury(state, command, policy, now)
        case cmd.Tick():
            return _tick(state, command, policy, now)
        case cmd.StartCycle():
            return _start(state, command, policy, now)
    if not state.registered:
        raise NotFound(f"workspace {state.workspace!r} is not registered; PUT /v1/workspaces/{state.workspace} first")
    match command:
        case cmd.Hold():
            return _hold(state, command, now)
        case cmd.Release(reason=reason):
            return [ev.WorkspaceReleased(reason=reason, until=state.hold.until)] if state.hold else []
        case cmd.Remove(reason=reason):
            return _remove(state, reason)
        case cmd.RequestRestart():
            return _request(command)
        case cmd.ReportProbe():
            return _probe(state, command, policy, now)
        case cmd.Cancel():
            return _cancel(state, command)


def _register(state: WorkspaceState, registration: Registration) -> Events:
    if state.registered and state.registration == registration:
        return []
    kind = ev.WorkspaceChanged if state.registered else ev.WorkspaceRegistered
    return [
        kind(
            fleet=registration.fleet,
            labels=registration.labels,
            executor=registration.executor,
            target=registration.target,
            policy=registration.policy,
        )
    ]


def _hold(state: WorkspaceState, command: cmd.Hold, now: datetime) -> Events:
    if command.until is not None and command.until <= now:
        raise InvalidInput(f"until: {command.until.isoformat()} is in the past", field="until")
    if state.hold is not None and (state.hold.reason, state.hold.until) == (command.reason, command.until):
        return []
    return [ev.WorkspaceHeld(reason=command.reason, until=command.until)]


def _remove(state: WorkspaceState, reason: str) -> Events:
    events: Events = []
    if state.restart is not None and state.restart.cycle is not None:
        events.append(abandon(state.restart, state.fence, ev.Abandonment.REMOVED))
    if state.restart is not None:
        events.append(ev.RestartCancelled(restart=state.restart.id, reason=reason))
    events.append(ev.WorkspaceRemoved(reason=reason))
    if state.pending:
        events.append(
            ev.WritesWaived(
                from_position=state.from_position,
                to_position=state.last_position,
                writes=state.pending_writes,
                reason=ev.Waiver.WORKSPACE_REMOVED,
            )
        )
    return events


def _request(command: cmd.RequestRestart) -> Events:
    if command.trigger is ev.Trigger.PROBE:
        raise InvalidInput("trigger: a probe is reported to /probes, where it can be suppressed", field="trigger")
    return [ev.RestartRequested(trigger=command.trigger, reason=command.reason)]


def _probe(state: WorkspaceState, command: cmd.ReportProbe, policy: Policy, now: datetime) -> Events:
    if command.healthy:
        return []
    reason = _suppression(state, policy, now)
    if reason is not None:
        return [ev.ProbeSuppressed(reason=reason, detail=command.detail)]
    return [ev.RestartRequested(trigger=ev.Trigger.PROBE, reason=command.detail)]


def _suppression(state: WorkspaceState, policy: Policy, now: datetime) -> ev.Suppression | None:
    settled_at = None if state.last_end_at is None else state.last_end_at + timedelta(milliseconds=policy.settle_ms)
    reasons = {
        ev.Suppression.CYCLE_RUNNING: state.cycle is not None,
        ev.Suppression.HELD: state.hold is not None,
        ev.Suppression.SETTLING: settled_at is not None and now < settled_at,
        ev.Suppression.RESTART_PENDING: state.pending or state.restart is not None,
    }
    return next((reason for reason, true in reasons.items() if true), None)


def _cancel(state: WorkspaceState, command: cmd.Cancel) -> Events:
    restart = state.restart
    if restart is None or restart.id != command.restart:
        raise Conflict(f"restart {command.restart} is already settled; there is nothing to cancel")
    if restart.cycle is not None:
        raise Conflict(f"restart {command.restart} is running; only a queued or retrying one can be cancelled")
    return [
        ev.RestartCancelled(restart=restart.id, reason=command.reason),
        ev.WritesWaived(
            from_position=restart.from_position,
            to_position=restart.to_position,
            writes=state.folded.writes.count if state.folded.writes else 0,
            reason=ev.Waiver.OPERATOR,
            restart=restart.id,
        ),
    ]


def _tick(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> Events:
    """Release a hold whose end has passed, rescue a passed lease, fold a window that is due."""
    events: Events = []
    for step in (_release_passed, _rescue, _fold):
        found = step(state, command, policy, now)
        for data in found:
            state = apply(state, data, at=now, position=state.last_position, policy=policy)
        events += found
    return events


def _release_passed(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> Events:
    hold = state.hold
    if hold is None or hold.until is None or now < hold.until:
        return []
    return [ev.WorkspaceReleased(reason="until has passed", until=hold.until)]


def _rescue(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> Events:
    restart, until = state.restart, command.lease_until
    if restart is None or restart.cycle is None or until is None or now < until:
        return []
    return without_result(state, restart, ev.Abandonment.LEASE_EXPIRED, policy, now)


def _fold(state: WorkspaceState, command: cmd.Tick, policy: Policy, now: datetime) -> Events:
    found = due(state, policy)
    return [_queue(state, command, policy, found)] if found is not None and found.at <= now else []


def _queue(state: WorkspaceState, command: cmd.Tick, policy: Policy, found: Due) -> ev.RestartQueued:
    waiting = state.folded.with_window(state.window)
    return ev.RestartQueued(
        restart=command.restart_id,
        cause=found.cause,
        kind=_kind(state),
        from_position=state.from_position,
        to_position=state.last_position,
        writes=state.pending_writes,
        requests=state.pending_requests,
        files=command.files,
        opened_at=waiting.opened_at or found.at,
        last_write_at=waiting.writes.last_at if waiting.writes else None,
        due_at=found.at,
        quiet_ms=policy.quiet_ms,
        max_wait_ms=policy.max_wait_ms,
        max_count=policy.max_count,
        edge=policy.edge,
        min_interval_ms=policy.min_interval_ms,
        policy_version=policy.version,
    )


def _kind(state: WorkspaceState) -> ev.Kind:
    return ev.Kind.RELOAD if state.pending_reload_only else ev.Kind.RESTART


def is_served(state: WorkspaceState, serving: Serving | None) -> bool:
    """Return whether a worker that serves this may carry the workspace's restart out; None: it serves everything."""
    return serving is None or (state.registration is not None and serving.serves(state.registration))


def may_start(state: WorkspaceState, policy: Policy, now: datetime, capacity: cmd.Capacity) -> bool:
    """Return whether a worker may start a cycle now.

    A start at the very instant of the last one waits: stamps strictly rise (S7), also while the
    database's clock stands still after a step back.
    """
    ready_at = state.ready_at
    if ready_at is None or now < ready_at or (state.last_start_at is not None and now <= state.last_start_at):
        return False
    fleet_full = policy.max_concurrent is not None and capacity.running_in_fleet >= policy.max_concurrent
    return not fleet_full and (capacity.running_most is None or capacity.running < capacity.running_most)


def _start(state: WorkspaceState, command: cmd.StartCycle, policy: Policy, now: datetime) -> Events:
    restart = state.restart
    if restart is None or not is_served(state, command.serving):
        return []
    if not may_start(state, policy, now, command.capacity):
        return []
    started = _started(state, restart, command, policy, now)
    if not started.shadow:
        return [started]
    ended = ev.CycleSucceeded(
        restart=restart.id,
        cycle=started.cycle,
        fence=started.fence,
        writes=started.writes,
        duration_ms=0,
        generation_before=None,
        generation_after=None,
        verified=False,
        shadow=True,
        output="",
    )
    return [started, ended]


def _started(
    state: WorkspaceState, restart: UnsettledRestart, command: cmd.StartCycle, policy: Policy, now: datetime
) -> ev.CycleStarted:
    return ev.CycleStarted(
        restart=restart.id,
        cycle=command.cycle_id,
        kind=_kind(state),
        attempt=restart.cycles + 1,
        iteration=command.iteration,
        fence=state.fence + 1,
        worker=command.worker,
        from_position=restart.from_position,
        to_position=state.last_position,
        writes=state.pending_writes,
        requests=state.pending_requests,
        files=command.files,
        started_at=now,
        previous_started_at=state.last_start_at,
        lease_until=now + timedelta(milliseconds=policy.lease_ms),
        shadow=policy.mode is Mode.SHADOW,
        fenced=command.fenced,
        policy_version=policy.version,
    )
