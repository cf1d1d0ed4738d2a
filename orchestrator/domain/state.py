"""What the events of one workspace fold into. ``evolve`` makes it; nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from orchestrator.domain.events import Cause, Kind
from orchestrator.domain.policy import PolicyPatch


class Phase(StrEnum):
    """A workspace's state as people see it: the first that holds, in this order (CONTRACT section 5)."""

    REMOVED = "removed"
    RUNNING = "running"
    HELD = "held"
    QUEUED = "queued"
    RETRYING = "retrying"
    BACKING_OFF = "backing_off"
    WINDOW_OPEN = "window_open"
    IDLE = "idle"


class Registration(Struct, frozen=True, kw_only=True):
    """What a workspace is and how it is restarted. ``policy`` is its own layer."""

    fleet: str
    labels: Mapping[str, str]
    executor: str
    target: Mapping[str, Any]
    policy: PolicyPatch = PolicyPatch()


class Hold(Struct, frozen=True, kw_only=True):
    """Nothing is queued or started until the release."""

    reason: str
    until: datetime | None


class Window(Struct, frozen=True, kw_only=True):
    """The writes and requests since the last fold.

    Writes that no rule gave a number follow the policy in force, which may change while the window
    is open: for those the instant of the write is kept. For the others the end itself is kept, as
    the quiet that ends last and the max_wait that ends first count.
    """

    opened_at: datetime | None = None
    writes: int = 0
    requests: int = 0
    reload_only: bool = True
    first_write_at: datetime | None = None
    last_write_at: datetime | None = None
    policy_quiet_from: datetime | None = None
    rule_quiet_until: datetime | None = None
    policy_max_wait_from: datetime | None = None
    rule_max_wait_until: datetime | None = None
    max_count_at: datetime | None = None
    max_count_of: int | None = None
    opened_idle: bool = False
    manual_at: datetime | None = None
    mutation_at: datetime | None = None
    probe_at: datetime | None = None


class Folded(Struct, frozen=True, kw_only=True):
    """What is pending and already folded: into the unsettled restart, or left by a given-up one."""

    writes: int = 0
    requests: int = 0
    reload_only: bool = True
    opened_at: datetime | None = None
    first_write_at: datetime | None = None
    last_write_at: datetime | None = None


class RunningCycle(Struct, frozen=True, kw_only=True):
    """The open cycle. Its lease is the row's, because renewals are no events."""

    id: str
    worker: str
    attempt: int
    iteration: int
    started_at: datetime
    lease_until: datetime
    shadow: bool


class UnsettledRestart(Struct, frozen=True, kw_only=True):
    """The one restart that is queued, running or retrying.

    ``ready_at`` is the instant from which a worker may start it. ``cycles`` counts all its cycles,
    ``spent`` those that count towards ``max_attempts``.
    """

    id: str
    cause: Cause
    kind: Kind
    from_position: int
    to_position: int
    files: int
    queued_at: datetime
    due_at: datetime
    ready_at: datetime
    retrying: bool = False
    cycles: int = 0
    spent: int = 0
    cycle: RunningCycle | None = None


class WorkspaceState(Struct, frozen=True, kw_only=True):
    """One workspace, folded from its events.

    ``settled_to`` is the last covered or waived position; ``last_position`` that of the last pending
    write or request. ``next_try_at`` is set while a give-up's writes wait; ``give_ups`` counts
    give-ups in a row.
    """

    workspace: str
    version: int = 0
    registration: Registration | None = None
    removed: bool = False
    hold: Hold | None = None
    fence: int = 0
    settled_to: int = 0
    last_position: int = 0
    last_start_at: datetime | None = None
    last_end_at: datetime | None = None
    give_ups: int = 0
    next_try_at: datetime | None = None
    window: Window = Window()
    folded: Folded = Folded()
    restart: UnsettledRestart | None = None
    last_cycle: str | None = None

    @property
    def registered(self) -> bool:
        """True while the workspace exists for the API."""
        return self.registration is not None and not self.removed

    @property
    def cycle(self) -> RunningCycle | None:
        """Return the open cycle, if one is."""
        return self.restart.cycle if self.restart else None

    @property
    def pending_writes(self) -> int:
        """Return how many writes are neither covered nor waived."""
        return self.window.writes + self.folded.writes

    @property
    def pending_requests(self) -> int:
        """Return how many requests are neither covered nor waived."""
        return self.window.requests + self.folded.requests

    @property
    def pending(self) -> bool:
        """True while anything waits for a cycle to succeed."""
        return self.pending_writes + self.pending_requests > 0

    @property
    def from_position(self) -> int:
        """Return the first position of the next range: the ranges of a workspace tile (S6)."""
        return self.settled_to + 1

    @property
    def pending_reload_only(self) -> bool:
        """True if everything that waits may be served by a reload."""
        return self.pending_requests == 0 and self.window.reload_only and self.folded.reload_only

    @property
    def ready_at(self) -> datetime | None:
        """Return the instant from which a worker may start a cycle; None while none may."""
        if self.restart is None or self.restart.cycle is not None or self.hold is not None or self.removed:
            return None
        return self.restart.ready_at

    @property
    def phase(self) -> Phase:
        """Return the workspace's state as people see it."""
        holds = {
            Phase.REMOVED: not self.registered,
            Phase.RUNNING: self.cycle is not None,
            Phase.HELD: self.hold is not None,
            Phase.QUEUED: self.restart is not None and not self.restart.retrying,
            Phase.RETRYING: self.restart is not None,
            Phase.BACKING_OFF: self.next_try_at is not None,
            Phase.WINDOW_OPEN: self.window.writes + self.window.requests > 0,
            Phase.IDLE: True,
        }
        return next(phase for phase, true in holds.items() if true)
