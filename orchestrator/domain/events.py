"""The events of the log, past tense, each with the data that CONTRACT section 3 promises.

Facts (``FileWritten``, ``ProbeSuppressed``, ``ProcessExited``) carry no version; every other event
of a workspace is a decision and raises the workspace's version by one. Durations are integer
milliseconds, instants are aware datetimes in UTC. A field named in ``OMITTED`` is left out of the
stored data where it is None. ``SCHEMA`` numbers the shape of the data; ``upcast`` knows the older ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from msgspec import Struct

from orchestrator.domain.policy import Action, Edge, PolicyPatch


class Operation(StrEnum):
    """What a write did to its file."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"


class WriteDecision(StrEnum):
    """What became of a write at once."""

    OPENED_WINDOW = "opened_window"
    FOLDED = "folded"
    RECORDED = "recorded"
    HELD = "held"


class Trigger(StrEnum):
    """A request for a restart that is not a write."""

    MANUAL = "manual"
    MUTATION = "mutation"
    PROBE = "probe"


class Cause(StrEnum):
    """Why a window was folded. The order is the one that decides at equal times (CONTRACT section 2)."""

    MANUAL = "manual"
    MUTATION = "mutation"
    MAX_COUNT = "max_count"
    LEADING = "leading"
    QUIET = "quiet"
    MAX_WAIT = "max_wait"
    PROBE = "probe"
    GAVE_UP = "gave_up"


class Kind(StrEnum):
    """``reload`` if all the writes of a restart are ``reload`` and nothing was requested."""

    RESTART = "restart"
    RELOAD = "reload"


class ErrorKind(StrEnum):
    """How a cycle failed: whether another try can help."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"


class Suppression(StrEnum):
    """Why a probe asked for nothing, in the order in which the reasons are tried."""

    CYCLE_RUNNING = "cycle_running"
    HELD = "held"
    SETTLING = "settling"
    RESTART_PENDING = "restart_pending"


class Abandonment(StrEnum):
    """Why a cycle ended without a result."""

    LEASE_EXPIRED = "lease_expired"
    WORKER_DIED = "worker_died"
    SHUTDOWN = "shutdown"
    REMOVED = "removed"


class Waiver(StrEnum):
    """By what a write or request ended without a restart."""

    WORKSPACE_REMOVED = "workspace_removed"
    OPERATOR = "operator"


class EventData(Struct, frozen=True, kw_only=True):
    """Base of all events' data. The class name is the event's type."""

    FACT: ClassVar[bool] = False
    SCHEMA: ClassVar[int] = 1
    OMITTED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def type_name(cls) -> str:
        """Return the type as the log spells it."""
        return cls.__name__


class WorkspaceRegistered(EventData, frozen=True, kw_only=True):
    """A workspace became known, or known again after its removal."""

    fleet: str
    labels: Mapping[str, str]
    executor: str
    target: Mapping[str, Any]
    policy: PolicyPatch


class WorkspaceChanged(EventData, frozen=True, kw_only=True):
    """A workspace's registration was replaced."""

    fleet: str
    labels: Mapping[str, str]
    executor: str
    target: Mapping[str, Any]
    policy: PolicyPatch


class WorkspaceHeld(EventData, frozen=True, kw_only=True):
    """Nothing is queued or started until the release."""

    reason: str
    until: datetime | None


class WorkspaceReleased(EventData, frozen=True, kw_only=True):
    """A hold ended: by a person, or by the tick when ``until`` had passed."""

    reason: str
    until: datetime | None


class WorkspaceRemoved(EventData, frozen=True, kw_only=True):
    """The workspace is no longer restarted; what was pending is waived in the same transaction."""

    reason: str


class PolicyChanged(EventData, frozen=True, kw_only=True):
    """A policy that is not one workspace's own changed. ``scope``: settings, default, fleet:NAME."""

    scope: str
    policy: PolicyPatch
    policy_version: int


class FileWritten(EventData, frozen=True, kw_only=True):
    """One accepted write. ``rule`` is the rule that matched, as it was written, if one did.

    ``decision`` is what its caller was answered; nothing is decided from it again.
    """

    FACT = True
    OMITTED = frozenset({"decision", "path_encoding", "rule", "quiet_ms", "max_wait_ms"})

    path: str
    op: Operation
    action: Action
    digest: str | None = None
    size: int | None = None
    decision: WriteDecision | None = None
    path_encoding: str | None = None
    rule: str | None = None
    quiet_ms: int | None = None
    max_wait_ms: int | None = None


class RestartRequested(EventData, frozen=True, kw_only=True):
    """Somebody or something asked for a restart."""

    trigger: Trigger
    reason: str


class ProbeSuppressed(EventData, frozen=True, kw_only=True):
    """An unhealthy probe that asks for nothing, and why."""

    FACT = True

    reason: Suppression
    detail: str


class RestartQueued(EventData, frozen=True, kw_only=True):
    """A window was folded into a restart: its cause, its range and the numbers used."""

    restart: str
    cause: Cause
    kind: Kind
    from_position: int
    to_position: int
    writes: int
    requests: int
    files: int
    opened_at: datetime
    last_write_at: datetime | None
    due_at: datetime
    quiet_ms: int
    max_wait_ms: int
    max_count: int
    edge: Edge
    min_interval_ms: int
    policy_version: int


class CycleStarted(EventData, frozen=True, kw_only=True):
    """A worker claimed the workspace; everything pending up to ``to_position`` belongs to this cycle.

    ``policy_version`` is that of the policy in force at this start; None where it was recorded as schema 1.
    """

    SCHEMA = 2
    OMITTED = frozenset({"policy_version"})

    restart: str
    cycle: str
    kind: Kind
    attempt: int
    iteration: int
    fence: int
    worker: str
    from_position: int
    to_position: int
    writes: int
    requests: int
    files: int
    started_at: datetime
    previous_started_at: datetime | None
    lease_until: datetime
    shadow: bool
    fenced: bool
    policy_version: int | None


class CycleSucceeded(EventData, frozen=True, kw_only=True):
    """The workspace was ready: the range of the cycle is covered. ``writes`` counts what it covers."""

    restart: str
    cycle: str
    fence: int
    writes: int
    duration_ms: int
    generation_before: str | None
    generation_after: str | None
    verified: bool
    shadow: bool
    output: str


class CycleFailed(EventData, frozen=True, kw_only=True):
    """The cycle ended badly. ``retry_at`` is None when the restart is given up."""

    restart: str
    cycle: str
    fence: int
    duration_ms: int
    error_kind: ErrorKind
    message: str
    retry_at: datetime | None


class CycleAbandoned(EventData, frozen=True, kw_only=True):
    """The cycle ended without a result; its writes are pending again."""

    restart: str
    cycle: str
    fence: int
    reason: Abandonment


class LateResultRejected(EventData, frozen=True, kw_only=True):
    """A result came for a cycle that is no longer open; it changed nothing."""

    restart: str
    cycle: str
    fence: int
    current_fence: int
    result: str


class RestartGaveUp(EventData, frozen=True, kw_only=True):
    """No attempts are left. What it held stays pending; the next restart comes at ``next_try_at``.

    What came after ``to_position`` no attempt has tried. None: recorded as schema 1, which was meant otherwise
    (``evolve``): newer writes are those after the give-up itself.
    """

    SCHEMA = 2
    OMITTED = frozenset({"to_position"})

    restart: str
    attempts: int
    next_try_at: datetime
    to_position: int | None = None


class RestartCancelled(EventData, frozen=True, kw_only=True):
    """A queued or retrying restart was ended by a person, or by the workspace's removal."""

    restart: str
    reason: str


class WritesWaived(EventData, frozen=True, kw_only=True):
    """What is in the range ends without a restart. ``writes`` counts it."""

    OMITTED = frozenset({"restart"})

    from_position: int
    to_position: int
    writes: int
    reason: Waiver
    restart: str | None = None


class ProcessExited(EventData, frozen=True, kw_only=True):
    """A supervised child ended by itself and is started again. It covers nothing."""

    FACT = True

    exit_code: int | None
    signal: int | None
    respawn_after_ms: int


class ExecutorAway(EventData, frozen=True, kw_only=True):
    """Nobody carries out what asks for this executor in this pool, ``since`` that instant, though restarts wait."""

    executor: str
    pool: str
    since: datetime


class ExecutorBack(EventData, frozen=True, kw_only=True):
    """Somebody serves that executor in that pool again, or nothing waits for it any more."""

    executor: str
    pool: str


class ClockRegressed(EventData, frozen=True, kw_only=True):
    """The database's clock stepped back; recorded time stands still until it has caught up."""

    by_ms: int


class UnknownEvent(EventData, frozen=True, kw_only=True):
    """An event of no workspace whose type a newer version added: shown as it is stored, passed over by every fold.

    Never recorded by this version, and none of ``EVENT_TYPES``. An unknown event of a workspace is an error instead:
    nothing may be folded over what might have changed that workspace (CONTRACT section 8).
    """

    name: str
    stored: Mapping[str, Any]


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event about to be appended. The store adds position and ``recorded_at``."""

    id: str
    workspace: str | None
    version: int | None
    data: EventData
    actor: str
    source: str | None = None
    source_id: str | None = None
    occurred_at: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class Recorded(NewEvent, frozen=True, kw_only=True):
    """An event as the log holds it."""

    position: int
    recorded_at: datetime
    schema: int = 1

    @property
    def type(self) -> str:
        """Return the type as the log spells it."""
        return self.data.name if type(self.data) is UnknownEvent else self.data.type_name()
