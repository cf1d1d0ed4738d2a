"""What the events of one workspace fold into. ``evolve`` makes it; nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from orchestrator.domain.events import Cause, Kind
from orchestrator.domain.policy import PolicyPatch

DEFAULT_POOL = "default"
SUPERVISED = "process"
"""The executor of programs that are children of an ``up``, which is their pool."""
OF_NO_UP = "up"
"""The pool of such a program that names none: it waits for the next ``up`` of its folder."""


class Phase(StrEnum):
    """A workspace's state as people see it: the first that holds, in this order (CONTRACT section 5)."""

    REMOVED = "removed"
    RUNNING = "running"
    HELD = "held"
    UNCLAIMABLE = "unclaimable"
    """Queued or retrying, and nobody serves its executor in its pool: known when it is read, no part of the state."""
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

    @property
    def pool(self) -> str:
        """Return the pool whose workers carry its restarts out."""
        pool = self.target.get("pool")
        if isinstance(pool, str):
            return pool
        return OF_NO_UP if self.executor == SUPERVISED else DEFAULT_POOL


class Hold(Struct, frozen=True, kw_only=True):
    """Nothing is queued or started until the release."""

    reason: str
    until: datetime | None


class Writes(Struct, frozen=True, kw_only=True):
    """Some writes that wait: how many, whether a reload serves them all, and when the first and the last came."""

    count: int
    reload_only: bool
    first_at: datetime
    last_at: datetime

    def followed_by(self, later: Writes | None) -> Writes:
        """Return these and later ones as one."""
        if later is None:
            return self
        return Writes(
            count=self.count + later.count,
            reload_only=self.reload_only and later.reload_only,
            first_at=self.first_at,
            last_at=later.last_at,
        )


class Requests(Struct, frozen=True, kw_only=True):
    """Requests that wait, and when the first of each kind came."""

    count: int
    manual_at: datetime | None = None
    mutation_at: datetime | None = None
    probe_at: datetime | None = None


class Ends(Struct, frozen=True, kw_only=True):
    """What the end of quiet, or of max_wait, is worked out from.

    Writes that no rule gave a number follow the policy in force, which may change while the window is open: for those
    the instant of the write that counts is kept. For the others the end itself is kept.
    """

    policy_from: datetime | None = None
    rule_until: datetime | None = None


class Full(Struct, frozen=True, kw_only=True):
    """Since when ``max_count`` writes wait, for the number that ``max_count`` was then."""

    at: datetime
    max_count: int


class OpenWrites(Struct, frozen=True, kw_only=True):
    """The writes of a window, and all that says when it is due by them.

    Two groups at most, whatever the rules are and however often they change: those that follow the policy and those
    that a rule gave a number, of which only the quiet that ends last and the max_wait that ends first count.
    ``opened_idle``: when the first of them came nothing waited, was queued, ran, retried or was held.
    """

    all: Writes
    opened_idle: bool
    quiet: Ends
    max_wait: Ends
    full: Full | None = None


class Window(Struct, frozen=True, kw_only=True):
    """What is fresh: the writes and requests since the last fold, which no attempt has tried."""

    opened_at: datetime | None = None
    writes: OpenWrites | None = None
    requests: Requests | None = None

    @property
    def is_open(self) -> bool:
        """True while anything is in it."""
        return self.writes is not None or self.requests is not None

    @property
    def all_writes(self) -> Writes | None:
        """Return its writes without what makes them due."""
        return None if self.writes is None else self.writes.all


class Folded(Struct, frozen=True, kw_only=True):
    """What is pending and already folded: into the unsettled restart, or left by a given-up one (then it is stale)."""

    opened_at: datetime | None = None
    writes: Writes | None = None
    requests: int = 0

    def with_window(self, window: Window) -> Folded:
        """Return this with everything that a window holds."""
        writes = window.all_writes if self.writes is None else self.writes.followed_by(window.all_writes)
        return Folded(
            opened_at=self.opened_at or window.opened_at,
            writes=writes,
            requests=self.requests + (window.requests.count if window.requests else 0),
        )


class NextTry(Struct, frozen=True, kw_only=True):
    """When what a give-up left is tried again.

    ``anyway``: whatever is in the window then. Give-ups of schema 1 were meant otherwise: only while no newer write is.
    """

    at: datetime
    anyway: bool


class RunningCycle(Struct, frozen=True, kw_only=True):
    """The open cycle. Its lease is no part of the state: renewals are no events."""

    id: str
    worker: str
    attempt: int
    iteration: int
    started_at: datetime
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
    write or request. ``next_try`` is set while a give-up's writes wait; ``give_ups`` counts
    give-ups in a row. ``registration`` is what the event at ``registration_position`` said; only the position
    is stored with the state, as every write stores that again.
    """

    workspace: str
    version: int = 0
    registration: Registration | None = None
    registration_position: int = 0
    removed: bool = False
    hold: Hold | None = None
    fence: int = 0
    settled_to: int = 0
    last_position: int = 0
    last_start_at: datetime | None = None
    last_end_at: datetime | None = None
    give_ups: int = 0
    next_try: NextTry | None = None
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
    def waiting_writes(self) -> Writes | None:
        """Return all writes that are neither covered nor waived, folded or not."""
        folded, fresh = self.folded.writes, self.window.all_writes
        return fresh if folded is None else folded.followed_by(fresh)

    @property
    def pending_writes(self) -> int:
        """Return how many writes are neither covered nor waived."""
        fresh, folded = self.window.writes, self.folded.writes
        return (fresh.all.count if fresh else 0) + (folded.count if folded else 0)

    @property
    def pending_requests(self) -> int:
        """Return how many requests are neither covered nor waived."""
        return (self.window.requests.count if self.window.requests else 0) + self.folded.requests

    @property
    def next_try_at(self) -> datetime | None:
        """Return when what a give-up left is tried again."""
        return self.next_try.at if self.next_try else None

    @property
    def waits_since(self) -> datetime | None:
        """Return when the first came of what waits; None where nothing does."""
        return self.folded.opened_at or self.window.opened_at

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
        writes = self.waiting_writes
        return self.pending_requests == 0 and (writes is None or writes.reload_only)

    @property
    def ready_at(self) -> datetime | None:
        """Return the instant from which a worker may start a cycle; None while none may."""
        if self.restart is None or self.restart.cycle is not None or self.hold is not None or self.removed:
            return None
        return self.restart.ready_at

    @property
    def phase(self) -> Phase:
        """Return the workspace's state as people see it."""
        if self.registration is None or self.removed:
            return Phase.REMOVED
        if self.cycle is not None:
            return Phase.RUNNING
        if self.hold is not None:
            return Phase.HELD
        if self.restart is not None:
            return Phase.RETRYING if self.restart.retrying else Phase.QUEUED
        if self.next_try is not None:
            return Phase.BACKING_OFF
        return Phase.WINDOW_OPEN if self.window.is_open else Phase.IDLE
