"""What a log can prove about lateness: L1 and L2, given the tick, and L3.

Only what nothing explains counts. A wait is explained by a hold, a change of policy or registration, the restart
that was unsettled meanwhile with its retries and give-ups, and cycles that took the workers' slots.
"""

from __future__ import annotations

from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Cycle, Restart, Workspace
from orchestrator.audit.verify.lines import spell_instant
from orchestrator.audit.verify.report import Promise

_MS = 1_000
_SLACK_US = 1_000_000
"""For commits and messages, on top of the tick."""
_HUNG_US = 30_000_000
"""For so long after ``cycle_timeout`` a worker still renews the lease of a cycle that does not come back."""


def limit_of_window(judge: Judge, workspace: Workspace, max_wait: int, min_interval: int) -> tuple[int | None, int]:
    """Return until when the window's writes must be started, and which write sets that; None without a write."""
    times = workspace.times[workspace.folded :]
    if not times or judge.tick_us is None:
        return None, 0
    floor = max(workspace.floor, judge.ledger.policy_changed_at)
    allowed = judge.tick_us + _SLACK_US
    if not workspace.ruled:
        return max(times[0], floor) + max(max_wait, min_interval) + allowed, workspace.writes[workspace.folded]
    limits = []
    for position, at in zip(workspace.writes[workspace.folded :], times, strict=True):
        own = workspace.ruled.get(position, (None, None))[1]
        limits.append((max(at, floor) + max(max_wait if own is None else own, min_interval) + allowed, position))
    return min(limits)


def check_start(judge: Judge, workspace: Workspace, restart: Restart, position: int, at: int) -> None:
    """L1: the first cycle starts in time. L2: after a worker's death the next one starts at once."""
    if judge.tick_us is None:
        return
    queued_us = judge.crowded(at) - restart.crowded
    allowed = judge.tick_us + _SLACK_US
    if restart.limit is not None and restart.cycles == 0 and at > restart.limit:
        limit = max(restart.limit, workspace.floor + allowed) + queued_us
        if at <= limit:
            judge.ledger.explained += 1
        else:
            _late(judge, workspace, restart.limit_position, position, at - limit)
    if restart.orphaned_at is not None:
        limit = max(restart.orphaned_at, workspace.floor) + allowed + queued_us
        if at > limit:
            text = f"{restart.id} goes on {(at - restart.orphaned_at) / 1e6:.1f} s after its worker's death was seen"
            judge.broken(Promise.L2, workspace, (restart.ready_position, position), text)


def _late(judge: Judge, workspace: Workspace, write: int, position: int, by_us: int) -> None:
    text = f"the cycle for the write at {write} starts {by_us / 1e6:.1f} s too late, and nothing in the log explains it"
    judge.broken(Promise.L1, workspace, (write, position), text)


def longest_until(judge: Judge, workspace: Workspace, started_at: int) -> int | None:
    """Return until when a cycle's lease can have been renewed at most; None if the log does not hold the numbers."""
    in_force = judge.policies.in_force(workspace)
    if in_force is None or in_force.numbers.cycle_timeout_ms is None or in_force.numbers.lease_ms is None:
        return None
    return started_at + (in_force.numbers.cycle_timeout_ms + in_force.numbers.lease_ms) * _MS + _HUNG_US


def check_abandonment(judge: Judge, workspace: Workspace, cycle: Cycle, position: int, at: int) -> None:
    """L2: however long its worker renewed the lease, the cycle was abandoned within a tick of its passing."""
    if judge.tick_us is None or cycle.longest_until is None:
        return
    if at > cycle.longest_until + judge.tick_us + _SLACK_US:
        until = spell_instant(cycle.longest_until)
        text = f"cycle {cycle.id} is abandoned after {until}, up to when its lease can have been renewed at most"
        judge.broken(Promise.L2, workspace, (cycle.position, position), text)


def check_stuck(judge: Judge, workspace: Workspace, position: int, at: int) -> None:
    """L3, after a decision: note what waits for nothing. The same transaction may still mend it."""
    if not _is_stuck(workspace):
        workspace.stuck_position, workspace.stuck_told = 0, False
    elif not workspace.stuck_position:
        workspace.stuck_position, workspace.stuck_at = position, at


def tell_stuck(judge: Judge, workspace: Workspace) -> None:
    """Report what was left stuck by a transaction that is over; once."""
    if workspace.stuck_told:
        return
    workspace.stuck_told = True
    restart = workspace.restart
    if restart is not None:
        text = f"{restart.id} has no retry after its failure, and no give-up follows"
    else:
        text = "what waits has neither a due time, nor an unsettled restart, nor a hold"
        if not workspace.registered:
            text = "what waits belongs to a workspace that is not registered, and nothing waives it"
    waits = workspace.writes[:1] + workspace.requests[:1]
    judge.broken(Promise.L3, workspace, (*waits, workspace.stuck_position), text)


def _is_stuck(workspace: Workspace) -> bool:
    restart = workspace.restart
    if restart is not None:
        return restart.must_give_up and restart.open is None
    if not workspace.pending or (workspace.held_position and workspace.registered):
        return False
    if not workspace.registered:
        return True
    window = len(workspace.writes) > workspace.folded
    asked = workspace.manual_at is not None or workspace.mutation_at is not None or workspace.probe_at is not None
    return not window and not asked and workspace.next_try_at is None


def check_at_end(judge: Judge, workspace: Workspace, at: int) -> None:
    """Judge what is still open at the last event of the log, which is recorded ``at``."""
    if workspace.stuck_position:
        tell_stuck(judge, workspace)
    if judge.tick_us is None or workspace.held_position or not workspace.registered:
        return
    if workspace.need in judge.ledger.away:
        return
    restart, allowed = workspace.restart, judge.tick_us + _SLACK_US
    if restart is None:
        _check_open_window(judge, workspace, at)
    elif restart.open is not None:
        until = restart.open.longest_until
        if until is not None and at > until + allowed:
            text = f"cycle {restart.open.id} was never abandoned, though its lease must have passed"
            judge.broken(Promise.L2, workspace, (restart.open.position,), text)
    else:
        queued_us = judge.crowded(at) - restart.crowded
        if restart.limit is not None and restart.cycles == 0:
            limit = max(restart.limit, workspace.floor + allowed) + queued_us
            if at > limit:
                _never(judge, workspace, restart.limit_position, restart.position)
        if restart.orphaned_at is not None and at > max(restart.orphaned_at, workspace.floor) + allowed + queued_us:
            text = f"{restart.id} never goes on after its worker's death"
            judge.broken(Promise.L2, workspace, (restart.ready_position,), text)


def _check_open_window(judge: Judge, workspace: Workspace, at: int) -> None:
    in_force = judge.policies.in_force(workspace)
    if in_force is None or in_force.numbers.max_wait_ms is None or in_force.numbers.min_interval_ms is None:
        return
    max_wait, min_interval = in_force.numbers.max_wait_ms * _MS, in_force.numbers.min_interval_ms * _MS
    limit, write = limit_of_window(judge, workspace, max_wait, min_interval)
    if limit is not None and at > limit:
        _never(judge, workspace, write, 0)


def _never(judge: Judge, workspace: Workspace, write: int, position: int) -> None:
    text = f"no cycle for the write at {write} has started by the end of the log, and nothing explains it"
    judge.broken(Promise.L1, workspace, (write, position), text)
