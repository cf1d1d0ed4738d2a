"""``Inquiries`` on the in-memory store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from orchestrator.domain.events import (
    Cause,
    CycleAbandoned,
    CycleFailed,
    FileWritten,
    PolicyChanged,
    Recorded,
    RestartGaveUp,
)
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.snapshot import Snapshot
from orchestrator.ports.inquiries import (
    FileWrites,
    PastEvent,
    Place,
    RestartSum,
    Scope,
    Waits,
    hottest_first,
    percentiles,
)
from orchestrator.ports.store import Clock
from orchestrator.storage.sql.workspace_rows import fleet_of
from tests.memory_store.content import Content
from tests.memory_store.log import MemoryLog

_FAILURES = (CycleFailed, CycleAbandoned, RestartGaveUp)


class MemoryInquiries:
    """``Inquiries`` over a content and the shared log below its length."""

    def __init__(self, log: MemoryLog, content: Content, clock: Clock) -> None:
        self._log = log
        self._content = content
        self._clock = clock

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        position = self._log.position_at(at, length=self._content.length)
        return Place(now=self._content.store_time(self._clock.now()), position=position)

    def snapshot_by(self, workspace: str, at: datetime) -> tuple[Place, Snapshot | None]:
        """Return where an instant lies in the log, and the workspace's newest snapshot of then or before."""
        place = self.place_of(at)
        return place, self.snapshots([workspace], place.position).get(workspace)

    def past_events(self, workspace: str | None, *, after: int, to_position: int, limit: int) -> list[PastEvent]:
        """Return a workspace's events after ``after``, and all changes of policies from the log's beginning on."""
        last = min(to_position, self._content.length)
        changes = [event for event in self._log.between(1, last) if isinstance(event.data, PolicyChanged)]
        mine = [] if workspace is None else islice(self._log.between(after + 1, last, workspace), limit)
        found = sorted([*changes, *mine], key=lambda event: event.position)
        return [PastEvent(event.position, event.recorded_at, event.data) for event in found]

    def snapshots(self, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
        """Return each workspace's newest snapshot at or before that position, for those that have one."""
        earlier = (found for position, found in self._content.snapshots.items() if position <= to_position)
        return {found.state.workspace: found for found in earlier if found.state.workspace in of}

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        return [found for position, found in self._content.snapshots.items() if first <= position <= last]

    def restart_sums(self, scope: Scope, *, most: int) -> list[RestartSum]:
        """Return the sums over the newest ``most`` restarts in scope."""
        groups: dict[tuple[RestartState, Cause], list[RestartProjection]] = {}
        for record in self._restarts(scope)[:most]:
            groups.setdefault((record.state, record.cause), []).append(record)
        return [
            RestartSum(
                state=state,
                cause=cause,
                restarts=len(group),
                started=sum(record.attempts > 0 and record.writes > 0 for record in group),
                shadow=sum(record.shadow for record in group),
                writes=sum(record.writes for record in group),
                cycles=sum(record.attempts for record in group),
            )
            for (state, cause), group in groups.items()
        ]

    def waits(self, scope: Scope, *, most: int) -> Waits:
        """Return the waits of the newest ``most`` succeeded restarts in scope."""
        found = [record for record in self._restarts(scope) if record.state is RestartState.SUCCEEDED][:most]
        return Waits(
            restarts=len(found),
            to_start_ms=percentiles([_ms(record.opened_at, record.started_at) for record in found]),
            to_success_ms=percentiles([_ms(record.opened_at, record.ended_at) for record in found]),
        )

    def storms(self, scope: Scope, *, limit: int, most: int) -> list[RestartProjection]:
        """Return the restarts with the most writes, most first; with a span, of the newest ``most`` in it."""
        found = self._restarts(scope)
        if scope.since is not None or scope.until is not None:
            found = found[:most]
        return sorted(found, key=lambda record: (-record.writes, -record.queued_position))[:limit]

    def failure_counts(self, scope: Scope, *, most: int) -> dict[tuple[str, str | None], int]:
        """Return how often each type of failure came, by type and error kind or reason."""
        counts: Counter[tuple[str, str | None]] = Counter()
        seen: Counter[str] = Counter()
        for event in self._newest(scope):
            bound = "" if scope.workspace is not None else event.type
            if isinstance(event.data, _FAILURES) and seen[bound] < most:
                seen[bound] += 1
                kind = getattr(event.data, "error_kind", None) or getattr(event.data, "reason", None)
                counts[event.type, None if kind is None else kind.value] += 1
        return dict(counts)

    def failures(self, scope: Scope, *, limit: int) -> list[Recorded]:
        """Return the newest failures in scope, newest first."""
        found = (event for event in self._newest(scope) if isinstance(event.data, _FAILURES))
        return list(islice(found, limit))

    def written(
        self, scope: Scope, *, after: int = 0, to_position: int | None = None, most: int, limit: int | None = None
    ) -> list[FileWrites]:
        """Return the files written after position ``after``, most writes first; the newest ``most`` writes count."""
        files: dict[tuple[str, str], FileWrites] = {}
        last = self._content.length if to_position is None else to_position
        inside = (event for event in self._newest(scope) if after < event.position <= last)
        for event in islice((event for event in inside if isinstance(event.data, FileWritten)), most):
            key = (event.workspace or "", getattr(event.data, "path", ""))
            before = files.get(key) or FileWrites(workspace=key[0], path=key[1], writes=0, last_position=event.position)
            files[key] = replace(before, writes=before.writes + 1)
        return _most_first(files.values())[:limit]

    def kept_files(self, scope: Scope, *, limit: int) -> list[FileWrites]:
        """Return the files with the most writes as they are kept, most first."""
        found = (file for file in self._content.files.values() if self._is_in(scope, file.workspace))
        return _most_first(found)[:limit]

    def kept_counts(self, files: Collection[tuple[str, str]]) -> list[FileWrites]:
        """Return what is kept of these files, given as (workspace, path)."""
        return [self._content.files[key] for key in files if key in self._content.files]

    def _restarts(self, scope: Scope) -> list[RestartProjection]:
        """Return the restarts in scope, newest first."""
        found = (
            record
            for record in self._content.restarts.values()
            if scope.workspace in (None, record.workspace)
            and scope.fleet in (None, record.fleet)
            and (scope.since is None or record.queued_at >= scope.since)
            and (scope.until is None or record.queued_at < scope.until)
        )
        return sorted(found, key=lambda record: -record.queued_position)

    def _newest(self, scope: Scope) -> Iterator[Recorded]:
        """Yield the events in scope, newest first."""
        for event in reversed(list(self._log.between(1, self._content.length, scope.workspace))):
            inside = (scope.since is None or event.recorded_at >= scope.since) and (
                scope.until is None or event.recorded_at < scope.until
            )
            if inside and self._is_in(scope, event.workspace):
                yield event

    def _is_in(self, scope: Scope, workspace: str | None) -> bool:
        stored = self._content.workspaces.get(workspace or "")
        return scope.workspace in (None, workspace) and (
            scope.fleet is None or (stored is not None and fleet_of(stored.state) == scope.fleet)
        )


def _most_first(files: Iterable[FileWrites]) -> list[FileWrites]:
    return sorted(files, key=hottest_first)


def _ms(first: datetime, last: datetime | None) -> int:
    return 0 if last is None else (last - first) // timedelta(milliseconds=1)
