"""What auditors ask of a store beyond its single rows: the past, and questions over many. ``store.Reader`` answers.

Over one workspace each is a few index probes or one index range, whatever the history's length. Over all of them
the work is bounded by ``most``: only that many of the newest rows in scope are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.events import Cause, EventData, Recorded
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instant lies in the log. ``now``: max(the database's clock, the last ``recorded_at``)."""

    now: datetime
    position: int
    """The newest position recorded at that instant or before; 0 if there is none."""


class PastEvent(NamedTuple):
    """What folding needs of an event."""

    position: int
    recorded_at: datetime
    data: EventData


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a question over many is about: all set fields must hold.

    ``since`` and ``until`` (excluded) speak of when a restart was queued, or an event recorded. ``fleet`` is the
    restart's own when it was queued, which holds for its failures too; for files it is the workspace's now.
    """

    workspace: str | None = None
    fleet: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RestartSum:
    """Restarts of one state and cause, summed. ``writes``: in the ranges of all of them."""

    state: RestartState
    cause: Cause
    restarts: int
    started: int
    """Those with writes of which at least one cycle was started."""
    shadow: int
    writes: int
    cycles: int


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Nearest-rank percentiles in milliseconds; None where there is nothing to measure."""

    p50: int | None
    p90: int | None
    p99: int | None
    max: int | None


def percentiles(values: Iterable[int]) -> Percentiles:
    """Return the nearest-rank percentiles of some milliseconds."""
    ranked = sorted(values)

    def at(percent: int) -> int | None:
        return ranked[(len(ranked) * percent + 99) // 100 - 1] if ranked else None

    return Percentiles(p50=at(50), p90=at(90), p99=at(99), max=at(100))


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long the oldest write or request of each of so many succeeded restarts waited, in milliseconds.

    ``to_start_ms``: from ``opened_at`` to the start of the covering cycle; ``to_success_ms``: to its success.
    """

    restarts: int
    to_start_ms: Percentiles
    to_success_ms: Percentiles


@dataclass(frozen=True, kw_only=True)
class FileWrites:
    """How often a file was written, and the newest position of those writes."""

    workspace: str
    path: str
    writes: int
    last_position: int


def hottest_first(file: FileWrites) -> tuple[int, int]:
    """Return the key that sorts files: most writes first, of equals the one that was written last."""
    return -file.writes, -file.last_position


FILE_COUNTS = "file_counts"
"""Name of the counters whose position says up to where the writes of each file are counted."""


class Inquiries(Protocol):
    """The part of a reader that only the audit uses."""

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        ...

    def snapshot_by(self, workspace: str, at: datetime) -> tuple[Place, Snapshot | None]:
        """Return where an instant lies in the log, and the workspace's newest snapshot of then or before."""
        ...

    def past_events(self, workspace: str | None, *, after: int, to_position: int, limit: int) -> list[PastEvent]:
        """Return a workspace's events after ``after``, and all changes of policies from the log's beginning on.

        In position order, both up to ``to_position``; at most ``limit`` of the workspace's. None: the changes only.
        """
        ...

    def snapshots(self, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
        """Return each workspace's newest snapshot at or before that position, for those that have one."""
        ...

    def restart_sums(self, scope: Scope, *, most: int) -> list[RestartSum]:
        """Return the sums over the newest ``most`` restarts in scope."""
        ...

    def waits(self, scope: Scope, *, most: int) -> Waits:
        """Return the waits of those of the newest ``most`` restarts in scope that succeeded."""
        ...

    def storms(self, scope: Scope, *, limit: int, most: int) -> list[RestartProjection]:
        """Return the restarts with the most writes, most first; with a span, of the newest ``most`` in it."""
        ...

    def failure_counts(self, scope: Scope, *, most: int) -> dict[tuple[str, str | None], int]:
        """Return how often each type of failure came, by type and error kind or reason.

        ``most`` holds for each type where no workspace is named. A give-up has no kind.
        """
        ...

    def failures(self, scope: Scope, *, limit: int) -> list[Recorded]:
        """Return the newest ``CycleFailed``, ``CycleAbandoned`` and ``RestartGaveUp`` in scope, newest first."""
        ...

    def written(
        self, scope: Scope, *, after: int = 0, to_position: int | None = None, most: int, limit: int | None = None
    ) -> list[FileWrites]:
        """Return the files written after position ``after``, hottest first; the newest ``most`` writes count."""
        ...

    def kept_files(self, scope: Scope, *, limit: int) -> list[FileWrites]:
        """Return the files with the most writes as they are kept (``FILE_COUNTS``), most first. No span."""
        ...

    def kept_counts(self, files: Collection[tuple[str, str]]) -> list[FileWrites]:
        """Return what is kept of these files, given as (workspace, path)."""
        ...

    def restart_events(self, record: RestartProjection, *, to_end: bool, limit: int) -> list[Recorded]:
        """Return the workspace's events from the first position of a restart's range on, in order.

        With ``to_end``, up to the last event about the restart. Without what their story leaves out: ``version``,
        ``source``, ``source_id``, ``occurred_at``, ``causation_id`` and ``traceparent`` are None.
        """
        ...

    def restart_writes(self, record: RestartProjection, *, after: int, limit: int) -> list[Recorded]:
        """Return the writes of a restart's range that ask for something, in order, those after position ``after``."""
        ...

    def stored_decisions(self, workspace: str, from_version: int, limit: int) -> list[StoredEvent]:
        """Return a workspace's decisions as they are kept, from a version on, in their order."""
        ...
