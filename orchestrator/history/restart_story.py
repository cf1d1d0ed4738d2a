"""The whole truth about one restart, as ``why`` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.events import Cause
from orchestrator.domain.explain import LateWrites, Request, Wait
from orchestrator.domain.policy import Edge
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.history.cycles import CycleStory

MOST_EVENTS = 10_000
"""A story reads at most this many events of its range; then it says ``truncated``."""


@dataclass(frozen=True, kw_only=True)
class WindowStory:
    """The window that was folded, and the numbers that were used to judge it."""

    opened_at: datetime
    first_write_at: datetime | None
    last_write_at: datetime | None
    due_at: datetime
    queued_at: datetime
    quiet_ms: int
    max_wait_ms: int
    max_count: int
    edge: Edge
    min_interval_ms: int
    policy_version: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much the restart answers for. ``actors`` counts who wrote or asked."""

    writes: int
    files: int
    requests: int
    actors: int


@dataclass(frozen=True, kw_only=True)
class PathCount:
    """How many of the restart's writes were to one path."""

    path: str
    writes: int


@dataclass(frozen=True, kw_only=True)
class ActorCount:
    """How many of the restart's writes and requests came from one actor."""

    actor: str
    events: int


@dataclass(frozen=True, kw_only=True)
class RestartStory:
    """The whole truth about one restart.

    ``truncated``: its range is too long to be read whole, so actors, top paths and requests count only the
    first ``MOST_EVENTS`` events of it. ``held`` is the reason of the hold that keeps it back now. ``own_writes`` are
    the files that were written as long after each of the last starts: by them the program seems to restart itself.
    """

    restart: RestartProjection
    explanation: str
    cause: Cause
    window: WindowStory
    cycles: Sequence[CycleStory]
    counts: Counts
    top_paths: Sequence[PathCount]
    actors: Sequence[ActorCount]
    requests: Sequence[Request]
    waited: Sequence[Wait]
    late_writes: LateWrites
    held: str | None = None
    next_try_at: datetime | None = None
    truncated: bool = False
    own_writes: Sequence[str] = ()
