"""What can be asked of one workspace. Ids and randomness come with the command."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.events import ErrorKind, Trigger
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Registration


@dataclass(frozen=True, kw_only=True)
class Register:
    """Register the workspace, or change its registration."""

    registration: Registration


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Queue and start nothing until the release, or until that instant."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Release:
    """End a hold."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Remove the workspace; what is pending is waived."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class RequestRestart:
    """A person (manual) or a change that must be picked up (mutation) asks for a restart."""

    trigger: Trigger
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReportProbe:
    """A health probe reports what it saw."""

    healthy: bool
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One look by the coalescer. ``files`` counts the distinct paths that wait, ``restart_id`` is a fresh id.

    ``lease_until`` is that of the open cycle, read under its lock; None if no cycle is open.
    """

    restart_id: str
    files: int = 0
    lease_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many cycles run now, and the most that may: None is no bound. The fleet's bound is the policy's."""

    running: int = 0
    running_most: int | None = None
    running_in_fleet: int = 0


UNBOUNDED = Capacity()
"""For who asks whether there is anything to start, whatever runs."""


@dataclass(frozen=True, kw_only=True)
class StartCycle:
    """A worker claims the workspace. ``files`` counts the distinct paths that wait.

    ``fenced`` says whether the executor compares fences. ``serving``: what the worker serves; None: whatever there is.
    """

    cycle_id: str
    worker: str
    iteration: int
    files: int = 0
    fenced: bool = False
    capacity: Capacity = field(default_factory=Capacity)
    serving: Serving | None = None


@dataclass(frozen=True, kw_only=True)
class Success:
    """The workspace was ready."""

    generation_before: str | None = None
    generation_after: str | None = None
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The cycle ended badly. ``jitter`` in [0, 1) picks the point of a full-jitter back-off."""

    error_kind: ErrorKind
    message: str
    jitter: float


@dataclass(frozen=True, kw_only=True)
class FinishCycle:
    """A worker reports the end of a cycle it claimed."""

    restart: str
    cycle: str
    fence: int
    result: Success | Failure


@dataclass(frozen=True, kw_only=True)
class ShutDownCycle:
    """A worker that stops gives its cycle back."""

    restart: str
    cycle: str
    fence: int


@dataclass(frozen=True, kw_only=True)
class AbandonDead:
    """Whoever started the cycle's worker saw it die; see ``service.dead_worker`` for who may say so."""

    cycle: str
    fence: int


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """A person ends the queued or retrying restart of that id."""

    restart: str
    reason: str


Command = (
    Register
    | Hold
    | Release
    | Remove
    | RequestRestart
    | ReportProbe
    | Tick
    | StartCycle
    | FinishCycle
    | ShutDownCycle
    | AbandonDead
    | Cancel
)
