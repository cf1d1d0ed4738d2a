"""What the reading commands ask, wherever the answers come from: a database, or the API of a running one.

Every answer is the JSON of the API (``history.views``), so that what is printed is the same from both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from orchestrator.domain.events import Cause
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase
from orchestrator.errors import NotFound

View = dict[str, Any]

PAGE = 500
"""How many things are asked for at a time."""


@dataclass(frozen=True, kw_only=True)
class WantedWorkspaces:
    """Which workspaces: all set fields must hold. ``at``: as they were then."""

    state: Phase | None = None
    fleet: str | None = None
    label: tuple[str, str] | None = None
    at: datetime | None = None

    def admits(self, workspace: View) -> bool:
        """Return whether a workspace that was named is one of them; a removed one is, unless a state is asked for."""
        return (
            self.state in (None, workspace["state"])
            and self.fleet in (None, workspace["fleet"])
            and (self.label is None or workspace["labels"].get(self.label[0]) == self.label[1])
        )


@dataclass(frozen=True, kw_only=True)
class WantedRestarts:
    """Which restarts: all set fields must hold. ``since`` and ``until`` speak of when they were queued."""

    workspace: str | None = None
    fleet: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: RestartState | None = None
    cause: Cause | None = None
    path: str | None = None
    """As it is stored."""


@dataclass(frozen=True, kw_only=True)
class WantedEvents:
    """Which events: of a workspace, of some types."""

    workspace: str | None = None
    types: Sequence[str] = ()


class Source(Protocol):
    """Where reading commands read. Every method raises ``OrchestratorError`` with a sentence for people."""

    def clock(self) -> datetime:
        """Return the present instant there."""

    def workspace(self, workspace: str, at: datetime | None) -> View:
        """Return one workspace, a removed one too. Raises ``NotFound``."""

    def workspaces(self, wanted: WantedWorkspaces) -> Iterable[View]:
        """Yield workspaces by id; removed ones only where they are asked for."""

    def restarts(self, wanted: WantedRestarts, most: int) -> list[View]:
        """Return restarts, newest first."""

    def why(self, restart: str) -> View:
        """Return why a restart happened. Raises ``NotFound``."""

    def fate(self, write: str) -> View:
        """Return what became of a write or request. Raises ``NotFound``."""

    def events(self, wanted: WantedEvents, after: int) -> list[View]:
        """Return up to ``PAGE`` events that come next after a position."""

    def newest(self, wanted: WantedEvents, most: int) -> list[View]:
        """Return the newest events, the oldest of them first."""

    def policy(self, fleet: str | None, workspace: str | None) -> View:
        """Return the policy of a workspace, of a fleet or of all, and where each number comes from.

        Raises ``NotFound`` for a workspace that is not registered.
        """


def unknown_workspace(workspace: str, at: str | None = None) -> NotFound:
    """Return the error for a workspace that is, or was, not there."""
    then = f"did not exist at {at}" if at else "is not registered"
    return NotFound(f"workspace {workspace!r} {then}; `orchestrator workspaces` lists those that are")
