"""Restarts as they are queued, given up and cancelled, and what is waived (S1, S2, S5, S6, S9, L4)."""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from orchestrator.audit.verify import event_data as data_of
from orchestrator.audit.verify import liveness
from orchestrator.audit.verify.due import Due, due_after_change, window_due
from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Restart, Workspace
from orchestrator.audit.verify.lines import Envelope, microseconds, spell_instant
from orchestrator.audit.verify.ranges import check_counts, check_from, check_to, told
from orchestrator.audit.verify.report import Promise

_MS = 1_000
_BACKOFF_MOST_MS = 3_600_000
"""A give-up's back-off doubles up to here."""
_NUMBERS = ("quiet_ms", "max_wait_ms", "max_count", "edge", "min_interval_ms")
_queued = msgspec.json.Decoder(data_of.RestartQueued).decode
_gave_up = msgspec.json.Decoder(data_of.RestartGaveUp).decode
_cancelled = msgspec.json.Decoder(data_of.RestartCancelled).decode
_waived = msgspec.json.Decoder(data_of.WritesWaived).decode


def queued(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a fold of the window into a restart."""
    data = _queued(event.data)
    position = event.position
    _check_single(judge, workspace, position, data)
    check_from(judge, workspace, position, data.from_position, data.restart)
    if workspace.pending:
        check_to(judge, workspace, position, data.to_position, data.restart)
        check_counts(judge, workspace, position, data.restart, data.to_position, (data.writes, data.requests))
        if workspace.restart is None:
            _check_due(judge, workspace, position, at, data)
            _check_stored(judge, workspace, position, data)
    else:
        text = f"{data.restart} is queued by {data.cause}, but no write and no request waits"
        judge.broken(Promise.S9, workspace, (workspace.settled_by, position), text)
    _count_queues(judge, workspace, position, data.restart)
    restart = Restart(
        id=data.restart,
        position=position,
        to_position=data.to_position,
        min_interval=data.min_interval_ms * _MS,
        ready_at=at,
        crowded=judge.crowded(at),
    )
    if judge.tick_us is not None:
        restart.limit, restart.limit_position = liveness.limit_of_window(
            judge, workspace, data.max_wait_ms * _MS, restart.min_interval
        )
    workspace.restart = restart
    workspace.next_try_at = None
    workspace.fold()


def _check_single(judge: Judge, workspace: Workspace, position: int, data: data_of.RestartQueued) -> None:
    before = workspace.restart
    if before is not None:
        text = f"{data.restart} is queued while {before.id} is unsettled"
        judge.broken(Promise.S6, workspace, (before.position, position), text)
        if before.open is not None:
            judge.cycle_ends(judge.ledger.at)


def _check_due(judge: Judge, workspace: Workspace, position: int, at: int, data: data_of.RestartQueued) -> None:
    if workspace.held_position:
        text = f"{data.restart} is queued while the workspace is held"
        judge.broken(Promise.S5, workspace, (workspace.held_position, position), text)
        return
    stored = (microseconds(data.due_at), data.cause)
    found = window_due(workspace, data)
    wrong = _wrong_due(workspace, data, stored, found, at)
    if wrong is not None:
        judge.broken(Promise.S5, workspace, (workspace.last_pending, position), f"{data.restart} {wrong}")


def _wrong_due(
    workspace: Workspace, data: data_of.RestartQueued, stored: Due, found: Due | None, at: int
) -> str | None:
    if found is None:
        return "is queued, but nothing that waits makes it due"
    due_at, cause = found
    if at < due_at:
        return f"is queued at {spell_instant(at)}, before it is due: {cause} at {spell_instant(due_at)}"
    if at < stored[0]:
        return f"is queued at {spell_instant(at)}, before the due_at that it stores, {spell_instant(stored[0])}"
    if stored == found or stored in due_after_change(workspace, data):
        return None
    said = f"stores {stored[1]} at {spell_instant(stored[0])} as cause and due_at"
    return f"{said}, but by its own numbers it is {cause} at {spell_instant(due_at)}"


def _check_stored(judge: Judge, workspace: Workspace, position: int, data: data_of.RestartQueued) -> None:
    """S5: the numbers are those in force; kind and last write are those of what waits."""
    last = workspace.times[-1] if workspace.times else None
    if (None if data.last_write_at is None else microseconds(data.last_write_at)) != last and not workspace.unseen:
        text = f"{data.restart} stores another last_write_at than its last write's"
        judge.broken(Promise.S5, workspace, (workspace.last_pending, position), text)
    opened = min((*workspace.times[:1], *workspace.request_times[:1]))
    if microseconds(data.opened_at) != opened and not workspace.unseen:
        text = f"{data.restart} stores another opened_at than that of the first that waits"
        judge.broken(Promise.S5, workspace, (workspace.last_pending, position), text)
    kind = kind_of(workspace)
    if data.kind != kind:
        text = f"{data.restart} is a {data.kind}, but what waits asks for a {kind}"
        judge.broken(Promise.S5, workspace, (workspace.full_position, position), text)
    in_force = judge.policies.in_force(workspace)
    if in_force is None:
        return
    if data.policy_version != in_force.version:
        text = f"{data.restart} stores policy version {data.policy_version}, but {in_force.version} is in force"
        judge.broken(Promise.S5, workspace, (in_force.position, position), text)
        return
    for name in _NUMBERS:
        said, right = getattr(data, name), getattr(in_force.numbers, name)
        if right is not None and said != right:
            text = f"{data.restart} stores {name} {said}, but the policy in force says {right}"
            where = max(in_force.position, workspace.policy_position)
            judge.broken(Promise.S5, workspace, (where, position), text)


def kind_of(workspace: Workspace) -> str:
    """Return what everything that waits asks for: a reload serves only if nothing asks for more."""
    more = workspace.requests or workspace.full_position > workspace.settled_to
    return "restart" if more else "reload"


def _count_queues(judge: Judge, workspace: Workspace, position: int, restart: str) -> None:
    workspace.queues += 1
    if workspace.queues > 1:
        text = f"{restart} is one restart too many: nothing came in since the one before it was queued"
        judge.broken(Promise.L4, workspace, (workspace.queue_position, position), text)
    workspace.queue_position = position


def gave_up(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a give-up: everything stays pending; newer writes are judged alone, unserved requests at their time.

    Newer are those after its ``to_position``; of schema 1 those after the give-up itself.
    """
    data = _gave_up(event.data)
    if event.schema > 1:
        _check_reach(judge, workspace, event.position, data)
    _check_give_up(judge, workspace, event.position, data, at)
    _end_restart(judge, workspace, event.position, data.restart, "is given up", at)
    workspace.next_try_at, workspace.next_try_anyway = microseconds(data.next_try_at), event.schema > 1
    if event.schema > 1:
        workspace.folded = bisect_right(workspace.writes, data.to_position or 0)
    else:
        workspace.folded, workspace.probe_at, workspace.changed_after = len(workspace.writes), None, []
    workspace.give_ups += 1
    workspace.queues = 0


def _check_reach(judge: Judge, workspace: Workspace, position: int, data: data_of.RestartGaveUp) -> None:
    """S6: what it has tried ends where its last cycle's range did."""
    restart = workspace.restart
    if restart is not None and restart.id == data.restart and restart.to_position != data.to_position:
        text = f"{data.restart} gives up what came until {data.to_position}; its cycle took up to {restart.to_position}"
        judge.broken(Promise.S6, workspace, (restart.position, position), text)


def _check_give_up(judge: Judge, workspace: Workspace, position: int, data: data_of.RestartGaveUp, at: int) -> None:
    """S4: only the last attempt or a permanent error ends a restart so, and the next try comes at its instant."""
    restart = workspace.restart
    if restart is None or restart.id != data.restart:
        return
    where = (restart.ready_position, position)
    if data.attempts != restart.cycles:
        text = f"{data.restart} is given up after {data.attempts} attempts, but the log holds {restart.cycles}"
        judge.broken(Promise.S7, workspace, (restart.position, position), text)
    if restart.may_give_up is False:
        text = f"{data.restart} is given up though attempts are left"
        judge.broken(Promise.S4, workspace, where, text)
    in_force = judge.policies.in_force(workspace)
    if in_force is None or in_force.numbers.give_up_backoff_ms is None:
        return
    backoff = in_force.numbers.give_up_backoff_ms
    right = at + min(max(_BACKOFF_MOST_MS, backoff), backoff * 2 ** min(workspace.give_ups, 40)) * _MS
    if microseconds(data.next_try_at) != right:
        said = spell_instant(microseconds(data.next_try_at))
        text = f"{data.restart} is to be tried again at {said}, but its back-off ends at {spell_instant(right)}"
        judge.broken(Promise.S4, workspace, where, text)


def cancelled(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a cancel: what its restart held is waived next."""
    data = _cancelled(event.data)
    restart = workspace.restart
    _end_restart(judge, workspace, event.position, data.restart, "is cancelled", at)
    workspace.waivable, workspace.waivable_at = restart.to_position if restart is not None else 0, at


def _end_restart(judge: Judge, workspace: Workspace, position: int, named: str, what: str, at: int) -> None:
    restart = workspace.restart
    workspace.floor = at
    if restart is None or restart.id != named:
        unsettled = "none is" if restart is None else f"{restart.id} is"
        where = restart.position if restart is not None else workspace.settled_by
        text = f"{named} {what}, but {unsettled} unsettled"
        judge.broken(Promise.S6, workspace, (where, position), text)
    if restart is not None and restart.open is not None:
        text = f"{named} {what} while its cycle {restart.open.id} runs"
        judge.broken(Promise.S3, workspace, (restart.open.position, position), text)
        judge.cycle_ends(at)
    workspace.restart = None


def waived(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a waiver: by name, in the transaction of a cancel or a removal, and of exactly what that left."""
    data = _waived(event.data)
    position = event.position
    check_from(judge, workspace, position, data.from_position, "the waiver")
    if workspace.waivable_at != at:
        text = f"positions up to {data.to_position} are waived ({data.reason}) without a cancel or a removal"
        judge.broken(Promise.S1, workspace, (position,), text)
    elif data.to_position != workspace.waivable:
        text = f"the waiver ends at {data.to_position}, but what was ended reaches up to {workspace.waivable}"
        judge.broken(Promise.S1, workspace, (workspace.waivable, position), text)
    unseen = workspace.unseen
    ended = workspace.settle(data.to_position, position)
    judge.ledger.waived += ended
    judge.ledger.stated += data.writes
    if data.writes != ended + unseen:
        told(judge, workspace, position, "the waiver", said=data.writes, held=ended + unseen)
    workspace.waivable_at = -1
