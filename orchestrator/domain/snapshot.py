"""A workspace's state at one position of the log, kept wherever a restart was settled.

A state of the past is the nearest one of these plus the few events that came since (``history.past``).
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain import events as ev
from orchestrator.domain.state import WorkspaceState

_SETTLING = (ev.CycleSucceeded, ev.RestartGaveUp, ev.RestartCancelled, ev.WorkspaceRemoved)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state right after the event at ``position``. No cycle is open in it, so it holds no lease."""

    position: int
    state: WorkspaceState


def is_kept(data: ev.EventData) -> bool:
    """Return whether the state after this event is kept: it settled a restart, or removed the workspace."""
    return isinstance(data, _SETTLING)
