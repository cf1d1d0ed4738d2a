"""What the checks need of each event's data; further fields are passed over ("at least", CONTRACT section 3)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Cause = Literal["manual", "mutation", "max_count", "leading", "quiet", "max_wait", "probe", "gave_up"]
Kind = Literal["restart", "reload"]
Suppression = Literal["cycle_running", "held", "settling", "restart_pending"]


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A path rule, and the numbers that it gives."""

    match: tuple[str, ...]
    action: Literal["restart", "reload", "record"] = "restart"
    quiet_ms: int | None = None
    max_wait_ms: int | None = None


class PolicyPatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One layer of the policy, as far as the log can show whether it was kept."""

    quiet_ms: int | None = None
    max_wait_ms: int | None = None
    max_count: int | None = None
    edge: Literal["trailing", "leading"] | None = None
    min_interval_ms: int | None = None
    settle_ms: int | None = None
    cycle_timeout_ms: int | None = None
    max_attempts: int | None = None
    retry_backoff_ms: int | None = None
    retry_backoff_max_ms: int | None = None
    give_up_backoff_ms: int | None = None
    lease_ms: int | None = None
    max_concurrent: int | None = None
    mode: Literal["live", "shadow"] | None = None
    rules: tuple[Rule, ...] | None = None


class _Data(msgspec.Struct, gc=False):
    pass


class FileWritten(_Data):
    """A write."""

    path: str
    action: Literal["restart", "reload", "record"]
    rule: str | None = None
    quiet_ms: Count | None = None
    max_wait_ms: Count | None = None


class Registered(_Data):
    """Of ``WorkspaceRegistered`` and ``WorkspaceChanged``."""

    fleet: str
    executor: str
    target: dict[str, Any]
    policy: PolicyPatch


class Held(_Data):
    """Of ``WorkspaceHeld``."""

    reason: str
    until: Instant | None


class Reason(_Data):
    """Of ``WorkspaceReleased`` and ``WorkspaceRemoved``."""

    reason: str


class PolicyChanged(_Data):
    """A policy layer."""

    scope: str
    policy: PolicyPatch
    policy_version: int


class RestartRequested(_Data):
    """A request."""

    trigger: Literal["manual", "mutation", "probe"]
    reason: str


class ProbeSuppressed(_Data):
    """A probe that asks for nothing."""

    reason: Suppression


class RestartQueued(_Data):
    """A fold, with the numbers that it used."""

    restart: str
    cause: Cause
    kind: Kind
    from_position: int
    to_position: int
    writes: Count
    requests: Count
    opened_at: Instant
    last_write_at: Instant | None
    due_at: Instant
    quiet_ms: Count
    max_wait_ms: Count
    max_count: Count
    edge: Literal["trailing", "leading"]
    min_interval_ms: Count
    policy_version: int


class CycleStarted(_Data):
    """A start. ``policy_version`` is there since schema 2."""

    restart: str
    cycle: str
    kind: Kind
    attempt: int
    fence: int
    from_position: int
    to_position: int
    writes: Count
    requests: Count
    started_at: Instant
    previous_started_at: Instant | None
    lease_until: Instant
    shadow: bool
    policy_version: int | None = None
    worker: str = ""


class CycleSucceeded(_Data):
    """The end that covers."""

    restart: str
    cycle: str
    fence: int
    writes: Count
    shadow: bool


class CycleFailed(_Data):
    """A bad end; ``retry_at`` null: given up."""

    restart: str
    cycle: str
    fence: int
    error_kind: Literal["transient", "permanent", "unknown", "timeout"]
    retry_at: Instant | None


class CycleAbandoned(_Data):
    """An end without a result."""

    restart: str
    cycle: str
    fence: int
    reason: Literal["lease_expired", "worker_died", "shutdown", "removed"]


class LateResultRejected(_Data):
    """A result that came too late."""

    cycle: str
    fence: int
    current_fence: int


class RestartGaveUp(_Data):
    """No attempts are left. ``to_position`` is there since schema 2, which is meant otherwise than schema 1."""

    restart: str
    attempts: int
    next_try_at: Instant
    to_position: int | None = None


class RestartCancelled(_Data):
    """A restart ended by a person or a removal."""

    restart: str


class WritesWaived(_Data):
    """What ends without a restart."""

    from_position: int
    to_position: int
    writes: Count
    reason: Literal["workspace_removed", "operator"]


class ProcessExited(_Data):
    """A supervised child's end."""

    respawn_after_ms: Count


class ExecutorAway(_Data):
    """Nobody serves that executor in that pool."""

    executor: str
    pool: str
    since: Instant


class ExecutorBack(_Data):
    """Somebody does again, or nothing waits for it."""

    executor: str
    pool: str


class ClockRegressed(_Data):
    """The database's clock stepped back."""

    by_ms: Count
