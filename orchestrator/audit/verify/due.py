"""When a window is due by the numbers that its restart stored: CONTRACT section 2, "due", written anew."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.audit.verify.event_data import RestartQueued
from orchestrator.audit.verify.ledger import Workspace

CAUSES = ("manual", "mutation", "max_count", "leading", "quiet", "max_wait", "probe", "gave_up")
"""At equal times the first one names the cause."""

_MS = 1_000
Due = tuple[int, str]


def window_due(workspace: Workspace, numbers: RestartQueued) -> Due | None:
    """Return instant and cause; None if nothing waits that could be due."""
    return _first([*_exact(workspace, numbers), *_max_count(workspace, numbers)], workspace, numbers)


def due_after_change(workspace: Workspace, numbers: RestartQueued) -> set[Due]:
    """Return what else may rightly be stored when ``max_count`` was changed to no more than what waited.

    Then it is the last write before a change that counts, not the ``max_count``-th.
    """
    counted = [at for at, _ in _max_count(workspace, numbers)]
    others = list(_exact(workspace, numbers))
    later = [at for at in workspace.changed_after if counted and at >= counted[0]]
    found = (_first([*others, (at, "max_count")], workspace, numbers) for at in later)
    return {due for due in found if due is not None}


def _first(candidates: list[Due], workspace: Workspace, numbers: RestartQueued) -> Due | None:
    spaced = _spacing_ends(workspace, numbers)
    moved = [(at if cause == "manual" else max(at, spaced), CAUSES.index(cause)) for at, cause in candidates]
    if not moved:
        return None
    at, rank = min(moved)
    return at, CAUSES[rank]


def _spacing_ends(workspace: Workspace, numbers: RestartQueued) -> int:
    return 0 if workspace.last_start is None else workspace.last_start + numbers.min_interval_ms * _MS


def _max_count(workspace: Workspace, numbers: RestartQueued) -> list[Due]:
    reached = workspace.folded + max(1, numbers.max_count) - 1
    return [(workspace.times[reached], "max_count")] if reached < len(workspace.times) else []


def _exact(workspace: Workspace, numbers: RestartQueued) -> Iterator[Due]:
    if workspace.manual_at is not None:
        yield workspace.manual_at, "manual"
    if workspace.mutation_at is not None:
        yield workspace.mutation_at, "mutation"
    fresh = len(workspace.times) > workspace.folded
    if workspace.next_try_at is not None and (workspace.next_try_anyway or not fresh):
        yield workspace.next_try_at, "gave_up"
    if not fresh:
        if workspace.probe_at is not None:
            yield workspace.probe_at, "probe"
        return
    first = workspace.times[workspace.folded]
    if numbers.edge == "leading" and workspace.opened_idle and _spacing_ends(workspace, numbers) <= first:
        yield first, "leading"
    quiet, waited = _quiet_and_max_wait(workspace, numbers)
    yield quiet, "quiet"
    yield waited, "max_wait"


def _quiet_and_max_wait(workspace: Workspace, numbers: RestartQueued) -> tuple[int, int]:
    """The quiet that ends last and the max_wait that ends first; a rule's own numbers count for its writes."""
    quiet, max_wait = numbers.quiet_ms * _MS, numbers.max_wait_ms * _MS
    begins = workspace.folded
    if not workspace.ruled:
        return workspace.times[-1] + quiet, workspace.times[begins] + max_wait
    ends: list[tuple[int, int]] = []
    for position, at in zip(workspace.writes[begins:], workspace.times[begins:], strict=True):
        own_quiet, own_wait = workspace.ruled.get(position, (None, None))
        ends.append(
            (at + (quiet if own_quiet is None else own_quiet), at + (max_wait if own_wait is None else own_wait))
        )
    return max(end for end, _ in ends), min(end for _, end in ends)
