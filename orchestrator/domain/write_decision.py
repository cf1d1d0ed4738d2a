"""What becomes of a write at once, as the caller is told."""

from __future__ import annotations

from orchestrator.domain.events import WriteDecision
from orchestrator.domain.policy import Action
from orchestrator.domain.state import WorkspaceState


def decision_at_once(before: WorkspaceState, action: Action) -> WriteDecision:
    """Return what becomes of a write of that action to a workspace in that state."""
    if action is Action.RECORD:
        return WriteDecision.RECORDED
    if before.hold is not None:
        return WriteDecision.HELD
    waits = before.restart is not None and before.restart.cycle is None
    joined = waits or before.window.is_open
    return WriteDecision.FOLDED if joined else WriteDecision.OPENED_WINDOW
