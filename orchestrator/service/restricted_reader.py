"""A reader for whoever may read some workspaces only: it shows those, and refuses what is about more than them.

What is not named here is refused: a question that is added to ``Reader`` stays closed until somebody decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar, cast

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.events import Recorded
from orchestrator.domain.policy import DEFAULT_FLEET, Policies
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.scopes import Reach
from orchestrator.domain.snapshot import Snapshot
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import Forbidden, NotFound
from orchestrator.ports.inquiries import FILE_COUNTS, FileWrites, PastEvent, Place, Scope
from orchestrator.ports.store import EventFilter, Reader, RestartFilter, Waived
from orchestrator.ports.workspaces import StoredWorkspace, WorkspaceFilter

FilterT = TypeVar("FilterT", WorkspaceFilter, RestartFilter)

_AT_ONCE = 500
_PLAIN = re.compile(r"[^*?]*")
_OF_A_SCOPE = frozenset(
    {
        "restart_sums",
        "waits",
        "storms",
        "failure_counts",
        "failures",
        "written",
        "kept_files",
        "kept_restart_sums",
        "kept_failure_counts",
    }
)

"""Questions about a workspace or fleet that their first argument names."""

_LISTED = frozenset({"storms", "failures", "written", "kept_files"})
"""Those that are answered with things of single workspaces. The others are sums over what was in a fleet then."""


def restricted(reader: Reader, reach: Reach) -> Reader:
    """Return what of a reader somebody may use whose reach is not everything."""
    return cast(Reader, RestrictedReader(reader, reach))


def unregistered(workspace: str) -> NotFound:
    """Return what is said of a workspace that there is not."""
    return NotFound(f"workspace {workspace!r} is not registered; PUT /v1/workspaces/{workspace} first")


def fleet_of(state: WorkspaceState) -> str:
    """Return the fleet by which a workspace is judged: that of one which is not registered is the default."""
    return state.registration.fleet if state.registration else DEFAULT_FLEET


def narrowed(wanted: FilterT, reach: Reach) -> FilterT:
    """Return a filter that leaves out at once what a reach does, where that is one whole fleet."""
    fleets = reach.fleets
    alone = len(fleets) == 1 and not reach.workspaces and _PLAIN.fullmatch(fleets[0])
    return replace(wanted, fleet=fleets[0]) if alone and wanted.fleet is None else wanted


class RestrictedReader:
    """``Reader``, as far as a reach goes."""

    def __init__(self, reader: Reader, reach: Reach) -> None:
        self._reader, self._reach = reader, reach
        self._seen: dict[str, bool] = {}

    def clock(self) -> datetime:
        """Return the database's clock."""
        return self._reader.clock()

    def last_position(self) -> int:
        """Return the newest position."""
        return self._reader.last_position()

    def policies(self) -> Policies:
        """Return the stored policy layers: a workspace's own numbers come from several."""
        return self._reader.policies()

    def sums_position(self) -> int | None:
        """Return up to where sums are kept."""
        return self._reader.sums_position()

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        return self._reader.place_of(at)

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a workspace's row; None where it is none of theirs."""
        stored = self._reader.workspace(workspace)
        return stored if stored is not None and self._shows_row(stored) else None

    def workspaces(self, wanted: WorkspaceFilter) -> list[StoredWorkspace]:
        """Return a page of their workspaces."""
        return self._paged(
            wanted.limit,
            lambda after: self._reader.workspaces(
                replace(narrowed(wanted, self._reach), limit=_AT_ONCE, **({} if after is None else {"after": after}))
            ),
            shows=self._shows_row,
            place=lambda stored: stored.state.workspace,
        )

    def restarts(self, wanted: RestartFilter) -> list[RestartProjection]:
        """Return a page of the history of their restarts."""
        side = "before" if wanted.after is None else "after"
        return self._paged(
            wanted.limit,
            lambda place: self._reader.restarts(
                replace(narrowed(wanted, self._reach), limit=_AT_ONCE, **({} if place is None else {side: place}))
            ),
            shows=lambda record: self._shows(record.workspace),
            place=lambda record: record.queued_position,
        )

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart by its id; None where it is none of theirs."""
        record = self._reader.restart(restart)
        return record if record is not None and self._shows(record.workspace) else None

    def restart_holding(self, workspace: str, position: int) -> RestartProjection | None:
        """Return the newest restart whose range holds ``position``."""
        return self._reader.restart_holding(workspace, position) if self._shows(workspace) else None

    def restarts_holding(self, positions: Collection[int]) -> dict[int, RestartProjection]:
        """Return what ``restart_holding`` says of each of these events."""
        found = self._reader.restarts_holding(positions)
        return {position: record for position, record in found.items() if self._shows(record.workspace)}

    def restart_events(self, record: RestartProjection, *, to_end: bool, limit: int) -> list[Recorded]:
        """Return the events of a restart's story."""
        self._need(record.workspace)
        return self._reader.restart_events(record, to_end=to_end, limit=limit)

    def restart_writes(self, record: RestartProjection, *, after: int, limit: int) -> list[Recorded]:
        """Return the writes of a restart's range."""
        self._need(record.workspace)
        return self._reader.restart_writes(record, after=after, limit=limit)

    def waived(self, workspace: str, position: int) -> Waived | None:
        """Return the waived range that holds ``position``."""
        return self._reader.waived(workspace, position) if self._shows(workspace) else None

    def event(self, event: str) -> Recorded | None:
        """Return an event by its id; None where it is none of theirs."""
        return self.events_by_id([event]).get(event)

    def events_by_id(self, ids: Collection[str]) -> dict[str, Recorded]:
        """Return the events of some ids, for those that are theirs."""
        found = self._reader.events_by_id(ids)
        return {name: event for name, event in found.items() if self._shows(event.workspace or "")}

    def events(self, wanted: EventFilter) -> list[Recorded]:
        """Return a page of the log of one workspace, or about one restart."""
        self._need_subject(wanted)
        return [event for event in self._reader.events(wanted) if self._shows(event.workspace or "")]

    def stored_events(self, wanted: EventFilter) -> list[StoredEvent]:
        """Return a page of the log of one workspace as it is kept."""
        self._need_subject(wanted)
        return [event for event in self._reader.stored_events(wanted) if self._shows(event.workspace or "")]

    def snapshot_by(self, workspace: str, at: datetime) -> tuple[Place, Snapshot | None]:
        """Return where an instant lies in the log, and the workspace's newest snapshot of then."""
        self._need(workspace)
        return self._reader.snapshot_by(workspace, at)

    def past_events(self, workspace: str | None, *, after: int, to_position: int, limit: int) -> list[PastEvent]:
        """Return a workspace's events, and the changes of policies."""
        if workspace is not None:
            self._need(workspace)
        return self._reader.past_events(workspace, after=after, to_position=to_position, limit=limit)

    def snapshots(self, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
        """Return each workspace's newest snapshot."""
        return self._reader.snapshots([name for name in of if self._shows(name)], to_position)

    def counters(self, name: str) -> Any:
        """Return how far the files are counted; no other sums are theirs."""
        if name != FILE_COUNTS:
            raise self._refusal()
        return self._reader.counters(name)

    def kept_counts(self, files: Collection[tuple[str, str]]) -> list[FileWrites]:
        """Return what is kept of these files, for those of their workspaces."""
        return self._reader.kept_counts([file for file in files if self._shows(file[0])])

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_A_SCOPE:
            raise self._refusal()

        def ask(scope: Scope, *given: Any, **named: Any) -> Any:
            self.need_scope(scope)
            found = getattr(self._reader, name)(scope, *given, **named)
            return self._theirs(found) if name in _LISTED else found

        return ask

    def _theirs(self, found: Any) -> Any:
        """Leave out what is of workspaces that were in a fleet of theirs and are not any more."""
        return [one for one in found if self._shows(one.workspace)]

    def need_scope(self, scope: Scope) -> None:
        """Return if all of a scope is theirs. Raises ``Forbidden``."""
        if scope.workspace is not None:
            self._need(scope.workspace)
        elif scope.fleet is None or not self._reach.holds_fleet(scope.fleet):
            raise self._refusal()

    def _need_subject(self, wanted: EventFilter) -> None:
        if wanted.workspace is not None:
            self._need(wanted.workspace)
        elif wanted.correlation_id is None or self.restart(wanted.correlation_id) is None:
            raise self._refusal()

    def _need(self, workspace: str) -> None:
        """Raise ``NotFound`` for a workspace that is not theirs, as for one that does not exist."""
        if not self._shows(workspace):
            raise unregistered(workspace)

    def _refusal(self) -> Forbidden:
        return Forbidden(
            f"this is about more than the key may read, which is {self._reach}: name one of those with workspace= or "
            "fleet=, or ask with a key that may read everything",
            needs="read",
        )

    def _shows(self, workspace: str) -> bool:
        if not workspace:
            return False
        if workspace not in self._seen:
            stored = self._reader.workspace(workspace)
            self._seen[workspace] = stored is not None and self._reach.holds(workspace, fleet_of(stored.state))
        return self._seen[workspace]

    def _shows_row(self, stored: StoredWorkspace) -> bool:
        shown = self._seen[stored.state.workspace] = self._reach.holds(stored.state.workspace, fleet_of(stored.state))
        return shown

    def _paged(
        self, limit: int, read: Callable[[Any], list[Any]], *, shows: Callable[[Any], bool], place: Callable[[Any], Any]
    ) -> list[Any]:
        """Return up to ``limit`` of theirs, in the order of the reader's pages."""
        found: list[Any] = []
        at: Any = None
        while True:
            page = read(at)
            found += [one for one in page if shows(one)]
            if len(found) >= limit or len(page) < _AT_ONCE:
                return found[:limit]
            at = place(page[-1])
