"""Cycles: one at a time, spaced, re-stamped, and what their ends lead to (S1 to S4, S6, S7)."""

from __future__ import annotations

import msgspec

from orchestrator.audit.verify import absences, liveness
from orchestrator.audit.verify import event_data as data_of
from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Cycle, Restart, Workspace
from orchestrator.audit.verify.lines import Envelope, microseconds, spell_instant
from orchestrator.audit.verify.ranges import check_counts, check_from, check_to, told
from orchestrator.audit.verify.report import Promise
from orchestrator.audit.verify.restarts import kind_of

_started = msgspec.json.Decoder(data_of.CycleStarted).decode
_succeeded = msgspec.json.Decoder(data_of.CycleSucceeded).decode
_failed = msgspec.json.Decoder(data_of.CycleFailed).decode
_abandoned = msgspec.json.Decoder(data_of.CycleAbandoned).decode
_MS = 1_000
_late = msgspec.json.Decoder(data_of.LateResultRejected).decode


def started(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a start: everything that waits belongs to it."""
    data = _started(event.data)
    position = event.position
    restart = _restart_of(judge, workspace, position, data, at)
    stamp = microseconds(data.started_at)
    if workspace.held_position:
        text = f"cycle {data.cycle} starts while the workspace is held"
        judge.broken(Promise.S5, workspace, (workspace.held_position, position), text)
    if _check_stamp(judge, workspace, position, data, at):
        _check_spacing(judge, workspace, position, data, restart)
    check_from(judge, workspace, position, data.from_position, f"cycle {data.cycle}")
    check_to(judge, workspace, position, data.to_position, f"cycle {data.cycle}")
    what = f"cycle {data.cycle}"
    check_counts(judge, workspace, position, what, data.to_position, (data.writes, data.requests))
    _check_kind(judge, workspace, position, data)
    _check_policy(judge, workspace, position, data, at)
    absences.started(judge, workspace, position, at)
    if judge.tick_us is not None:
        liveness.check_start(judge, workspace, restart, position, at)
    restart.cycles += 1
    restart.retrying, restart.orphaned_at, restart.to_position = False, None, data.to_position
    restart.open = Cycle(
        id=data.cycle,
        fence=data.fence,
        position=position,
        started_at=stamp,
        lease_until=microseconds(data.lease_until),
        to_position=data.to_position,
        shadow=data.shadow,
        longest_until=liveness.longest_until(judge, workspace, stamp),
        worker=data.worker,
    )
    _check_alive(judge, workspace, position, data)
    judge.cycle_begins(at)
    workspace.fence = max(workspace.fence, data.fence)
    workspace.last_start, workspace.start_position = stamp, position
    workspace.started_to = data.to_position
    workspace.fold()


def _restart_of(judge: Judge, workspace: Workspace, position: int, data: data_of.CycleStarted, at: int) -> Restart:
    """Return the restart that the cycle belongs to, as the log has it from here on."""
    restart = workspace.restart
    if restart is not None and restart.open is not None:
        text = f"cycle {data.cycle} starts while cycle {restart.open.id} is live"
        judge.broken(Promise.S3, workspace, (restart.open.position, position), text)
        judge.cycle_ends(at)
        restart.open = None
    if restart is not None and restart.id == data.restart:
        return restart
    if restart is None:
        text = f"cycle {data.cycle} starts for {data.restart}, which no event has queued: it has no cause"
        judge.broken(Promise.S9, workspace, (workspace.settled_by, position), text)
    else:
        text = f"cycle {data.cycle} starts for {data.restart} while {restart.id} is unsettled"
        judge.broken(Promise.S6, workspace, (restart.position, position), text)
    adopted = Restart(
        id=data.restart,
        position=position,
        to_position=data.to_position,
        min_interval=0,
        ready_at=0,
        cycles=data.attempt - 1,
        adopted=True,
    )
    workspace.restart = adopted
    return adopted


def _check_alive(judge: Judge, workspace: Workspace, position: int, data: data_of.CycleStarted) -> None:
    """S3: a worker that was said to have died starts nothing; each start of a worker process has a name of its own."""
    said = judge.ledger.dead_workers.get(data.worker)
    if said is not None:
        text = f"cycle {data.cycle} is started by {data.worker}, which was said to have died"
        judge.broken(Promise.S3, workspace, (said, position), text)


def _check_stamp(judge: Judge, workspace: Workspace, position: int, data: data_of.CycleStarted, at: int) -> bool:
    """S7: the stamp is this event's instant and later than the last, the fence higher, the last stamp named.

    Returns whether the stamp rises, without which there is no spacing to measure.
    """
    stamp, last = microseconds(data.started_at), workspace.last_start
    where = (workspace.start_position, position)
    rises = last is None or stamp > last
    if not rises:
        text = f"cycle {data.cycle} is stamped {spell_instant(stamp)}, not later than the start before it"
        judge.broken(Promise.S7, workspace, where, text)
    elif stamp != at:
        text = f"cycle {data.cycle} is stamped {spell_instant(stamp)}, but was recorded at {spell_instant(at)}"
        judge.broken(Promise.S7, workspace, (position,), text)
    previous = None if data.previous_started_at is None else microseconds(data.previous_started_at)
    if previous != last:
        said = "no start" if previous is None else spell_instant(previous)
        judge.broken(Promise.S7, workspace, where, f"cycle {data.cycle} names {said} as the start before it")
    if data.fence <= workspace.fence:
        text = f"cycle {data.cycle} has fence {data.fence}, not above {workspace.fence}"
        judge.broken(Promise.S7, workspace, where, text)
    return rises


def _check_spacing(
    judge: Judge, workspace: Workspace, position: int, data: data_of.CycleStarted, restart: Restart
) -> None:
    stamp, last = microseconds(data.started_at), workspace.last_start
    if data.attempt != restart.cycles + 1:
        text = f"cycle {data.cycle} is attempt {data.attempt}, but {restart.cycles} cycles of {restart.id} came before"
        judge.broken(Promise.S7, workspace, (restart.position, position), text)
    if restart.cycles:
        if stamp < restart.ready_at:
            text = f"cycle {data.cycle} retries before {spell_instant(restart.ready_at)}"
            judge.broken(Promise.S4, workspace, (restart.ready_position, position), text)
        return
    asked = workspace.started_to < workspace.manual_position <= data.to_position
    if last is None or asked or stamp >= last + restart.min_interval:
        return
    seconds = restart.min_interval / 1_000_000
    text = f"cycle {data.cycle} starts less than {seconds:g} s after the start before it, and nobody asked for it"
    judge.broken(Promise.S4, workspace, (workspace.start_position, position), text)


def _check_kind(judge: Judge, workspace: Workspace, position: int, data: data_of.CycleStarted) -> None:
    kind = kind_of(workspace)
    if data.kind != kind:
        text = f"cycle {data.cycle} is a {data.kind}, but what it takes asks for a {kind}"
        judge.broken(Promise.S1, workspace, (workspace.full_position, position), text)


def _check_policy(judge: Judge, workspace: Workspace, position: int, data: data_of.CycleStarted, at: int) -> None:
    """The policy is read at each start, under the lock: its version (named since schema 2), its mode, its lease."""
    in_force = judge.policies.in_force(workspace)
    if in_force is None or data.policy_version is None:
        return
    where = (max(in_force.position, workspace.policy_position), position)
    if data.policy_version != in_force.version:
        text = f"cycle {data.cycle} names policy version {data.policy_version}, but {in_force.version} is in force"
        judge.broken(Promise.S5, workspace, where, text)
        return
    numbers = in_force.numbers
    if data.shadow != (numbers.mode == "shadow"):
        said = str(data.shadow).lower()
        text = f"cycle {data.cycle} says shadow: {said}, but the mode in force is {numbers.mode}"
        judge.broken(Promise.S1, workspace, where, text)
    lease = microseconds(data.lease_until) - at
    if numbers.lease_ms is not None and lease != numbers.lease_ms * _MS:
        text = f"cycle {data.cycle} has a lease of {lease / 1e6:g} s; the policy in force says {numbers.lease_ms} ms"
        judge.broken(Promise.S3, workspace, where, text)


def succeeded(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a success: what the cycle's range holds is covered."""
    data = _succeeded(event.data)
    position = event.position
    cycle = _ended(judge, workspace, position, (data.restart, data.cycle, data.fence), "succeeds", at)
    if cycle is None:
        return
    if data.shadow != cycle.shadow:
        text = f"cycle {data.cycle} ends with shadow: {str(data.shadow).lower()}, but it did not start so"
        judge.broken(Promise.S1, workspace, (cycle.position, position), text)
    unseen = workspace.unseen
    ended = workspace.settle(cycle.to_position, position)
    judge.ledger.covered += ended
    judge.ledger.stated += data.writes
    if data.writes != ended + unseen:
        what = f"the success of cycle {data.cycle}"
        told(judge, workspace, position, what, said=data.writes, held=ended + unseen)
    workspace.restart = None
    workspace.give_ups = 0
    workspace.floor = at


def failed(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a failure: a retry follows at its instant, or a give-up in the same transaction."""
    data = _failed(event.data)
    named = (data.restart, data.cycle, data.fence)
    if _ended(judge, workspace, event.position, named, "fails", at) is None or workspace.restart is None:
        return
    restart = workspace.restart
    restart.retrying = True
    restart.must_give_up = data.retry_at is None
    restart.spent += 1
    restart.may_give_up = True if data.error_kind == "permanent" else _is_spent(judge, workspace, restart)
    if restart.may_give_up and data.retry_at is not None:
        text = f"cycle {data.cycle} fails and is to be retried, though no attempt is left"
        judge.broken(Promise.S4, workspace, (restart.position, event.position), text)
    restart.ready_at = at if data.retry_at is None else microseconds(data.retry_at)
    if data.retry_at is not None:
        _check_backoff(judge, workspace, restart, data, event.position, at)
    restart.ready_position = event.position
    restart.limit = None


def _check_backoff(
    judge: Judge, workspace: Workspace, restart: Restart, data: data_of.CycleFailed, position: int, at: int
) -> None:
    """S4: a retry waits no longer than its back-off, and not at all while a manual request waits."""
    in_force = judge.policies.in_force(workspace)
    if in_force is None or restart.adopted:
        return
    first_ms, most_ms = in_force.numbers.retry_backoff_ms, in_force.numbers.retry_backoff_max_ms
    if first_ms is None or most_ms is None:
        return
    longest_ms = 0 if workspace.manual_at is not None else min(most_ms, first_ms * 2 ** min(restart.spent - 1, 40))
    if not at <= restart.ready_at <= at + longest_ms * _MS:
        waits = (restart.ready_at - at) / 1e6
        text = f"cycle {data.cycle} is to be retried after {waits:g} s; its back-off is {longest_ms / 1e3:g} s at most"
        judge.broken(Promise.S4, workspace, (restart.position, position), text)


def abandoned(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take an abandonment: the next attempt may start at once."""
    data = _abandoned(event.data)
    position = event.position
    cycle = _ended(judge, workspace, position, (data.restart, data.cycle, data.fence), "is abandoned", at)
    if cycle is None or workspace.restart is None:
        return
    restart = workspace.restart
    restart.ready_at, restart.ready_position, restart.limit = at, position, None
    restart.retrying, restart.may_give_up = False, False
    if data.reason not in ("lease_expired", "worker_died"):
        return
    restart.spent += 1
    restart.may_give_up = _is_spent(judge, workspace, restart)
    restart.must_give_up = restart.may_give_up is True
    if data.reason == "worker_died":
        judge.ledger.dead_workers.setdefault(cycle.worker, position)
        judge.ledger.cycles_of_dead[cycle.id] = position
    elif at < cycle.lease_until:
        text = f"cycle {data.cycle} is abandoned though its lease runs until {spell_instant(cycle.lease_until)}"
        judge.broken(Promise.S3, workspace, (cycle.position, position), text)
    restart.orphaned_at, restart.crowded = at, judge.crowded(at)
    if data.reason == "lease_expired":
        liveness.check_abandonment(judge, workspace, cycle, position, at)


def _is_spent(judge: Judge, workspace: Workspace, restart: Restart) -> bool | None:
    """Return whether no attempt is left; None if the log does not hold ``max_attempts``, or all of its cycles."""
    in_force = judge.policies.in_force(workspace)
    if in_force is None or in_force.numbers.max_attempts is None or restart.adopted:
        return None
    return restart.spent >= in_force.numbers.max_attempts


def late_result(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a result that was refused: rightly only if its cycle is not the live one with the current fence."""
    data = _late(event.data)
    said = judge.ledger.cycles_of_dead.get(data.cycle)
    if said is not None:
        text = f"cycle {data.cycle} has a result, but its worker was said to have died"
        judge.broken(Promise.S3, workspace, (said, event.position), text)
    cycle = workspace.restart.open if workspace.restart is not None else None
    if cycle is not None and (cycle.id, cycle.fence) == (data.cycle, data.fence):
        text = f"the result of cycle {data.cycle} is refused though the cycle is live and its fence current"
        judge.broken(Promise.S3, workspace, (cycle.position, event.position), text)
    elif data.current_fence != workspace.fence:
        text = f"fence {data.current_fence} is called current, but it is {workspace.fence}"
        judge.broken(Promise.S3, workspace, (workspace.start_position, event.position), text)


def _ended(
    judge: Judge, workspace: Workspace, position: int, named: tuple[str, str, int], what: str, at: int
) -> Cycle | None:
    """Return the live cycle if this ends it; report an end that no live cycle with that fence has (S3)."""
    restart_id, cycle_id, fence = named
    restart = workspace.restart
    cycle = restart.open if restart is not None else None
    if restart is None or cycle is None or (restart.id, cycle.id, cycle.fence) != named:
        live = "no cycle is live" if cycle is None else f"cycle {cycle.id} with fence {cycle.fence} is live"
        where = workspace.start_position if cycle is None else cycle.position
        text = f"cycle {cycle_id} of {restart_id} {what} with fence {fence}, but {live}"
        judge.broken(Promise.S3, workspace, (where, position), text)
    if restart is None or cycle is None or (cycle.id != cycle_id and restart.id != restart_id):
        return None
    restart.open = None
    judge.cycle_ends(at)
    workspace.last_end = at
    return cycle
