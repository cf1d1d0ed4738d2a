"""Ranges and counts that events state, against what the log holds (S1, S2, S6)."""

from __future__ import annotations

from bisect import bisect_right

from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Workspace
from orchestrator.audit.verify.report import Promise


def check_from(judge: Judge, workspace: Workspace, position: int, from_position: int, what: str) -> None:
    """S6: a range begins where the last covered or waived one ended, without overlap or hole."""
    expected = workspace.settled_to + 1
    if from_position == expected:
        return
    kind = "overlaps what is settled up to" if from_position < expected else "leaves a hole after"
    judge.broken(
        Promise.S6,
        workspace,
        (workspace.settled_by, position),
        f"the range of {what} begins at {from_position} and {kind} position {workspace.settled_to}",
    )
    if from_position > expected:
        workspace.settle(from_position - 1, position)


def check_to(judge: Judge, workspace: Workspace, position: int, to_position: int, what: str) -> None:
    """S1: a range ends at the last write or request that waits: what came before belongs to it, nothing after it."""
    last = workspace.last_pending
    if to_position == last:
        return
    if to_position < last:
        left = min((p for p in (*workspace.writes, *workspace.requests) if p > to_position), default=None)
        text = f"the range of {what} ends at {to_position} and leaves out position {left}, which waited by then"
        if left is None:
            text = f"the range of {what} ends at {to_position}, which is no position"
        judge.broken(Promise.S1, workspace, (last if left is None else left, position), text)
    elif to_position >= position:
        text = f"the range of {what} ends at {to_position}, so it claims what came only after it, at {position}"
        judge.broken(Promise.S1, workspace, (position, to_position), text)
    else:
        text = f"the range of {what} ends at {to_position}, where no write or request waits; the last is at {last}"
        judge.broken(Promise.S1, workspace, (last, to_position, position), text)


def check_counts(judge: Judge, workspace: Workspace, position: int, what: str, to: int, said: tuple[int, int]) -> None:
    """S2: the writes and requests that an event counts are those that wait up to ``to``. Each gap is told once."""
    writes, requests = said
    held = bisect_right(workspace.writes, to) + workspace.unseen
    if writes != held:
        told(judge, workspace, position, what, said=writes, held=held)
        workspace.unseen += writes - held
    asked = bisect_right(workspace.requests, to) + workspace.unseen_requests
    if requests != asked:
        text = f"{what} counts {requests} requests, but {asked} wait in its range"
        judge.broken(Promise.S2, workspace, (workspace.settled_by, position), text)
        workspace.unseen_requests += requests - asked


def told(judge: Judge, workspace: Workspace, position: int, what: str, *, said: int, held: int) -> None:
    """Report a count of writes that the log does not bear out."""
    text = f"{what} counts {said} writes, but the log holds {held} in its range"
    judge.broken(Promise.S2, workspace, (workspace.settled_by, position), text)
