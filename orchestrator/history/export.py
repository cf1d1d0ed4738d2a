"""What an auditor takes away: the log, or the restarts, as NDJSON, CSV or one JSON array, page by page.

Memory stays flat, and each page is a reading transaction of its own: the log only grows, so that changes nothing,
and no transaction stays open for as long as the reader of the export takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from orchestrator.domain.canonical_line import StoredEvent, canonical_lines
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.history.export_formats import Format, Page, encoded
from orchestrator.history.storms import check_workspace
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import EventFilter, EventStore, Reader, RestartFilter
from orchestrator.ports.workspaces import WorkspaceFilter

_PAGE = 1_000
_FINEST = timedelta(microseconds=1)
_FIRST = datetime.min.replace(tzinfo=UTC)

Progress = Callable[[int, int], None]
"""Takes the position that is exported and the last one that will be."""


class Subject(StrEnum):
    """What is exported: the log's events, or the restarts by the position at which they were queued."""

    EVENTS = "events"
    RESTARTS = "restarts"


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported: what lies after position ``after`` and in scope, up to the last position at the start.

    Events of a fleet are those of the workspaces that are in it now; a restart has the fleet it was queued in.
    """

    of: Subject = Subject.EVENTS
    format: Format = Format.NDJSON
    after: int = 0
    scope: Scope = field(default_factory=Scope)

    @property
    def file_name(self) -> str:
        """Return a name for the file, like ``events-ws-1.csv``; colons are no good in names of files."""
        of = (self.scope.workspace or self.scope.fleet or "all").replace(":", "_")
        return f"{self.of.value}-{of}.{self.format.value}"


def export(
    store: EventStore,
    write: Callable[[str], object],
    after: int = 0,
    workspace: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the events after position ``after`` up to the last one at the start as NDJSON; return how many.

    ``workspace`` None: all events, those without a workspace too.
    """
    exported = 0
    with store.read() as reader:
        last = reader.last_position()
    for page in _events(store, Export(after=after, scope=Scope(workspace=workspace)), last, progress or _silent):
        write(canonical_lines(page).decode())
        exported += len(page)
    return exported


def exported(store: EventStore, wanted: Export, progress: Progress | None = None) -> Iterator[tuple[bytes, int]]:
    """Yield the export piece by piece, each with how many rows it holds. Raises ``NotFound`` at once, before the first.

    Raises ``StorageUnavailable`` in the middle when the database goes away: what was yielded is then only a part.
    """
    with store.read() as reader:
        check_workspace(reader, wanted.scope)
        last = reader.last_position()
    return encoded(_pages(store, wanted, last, progress or _silent), wanted.format, _COLUMNS[wanted.of])


_COLUMNS = {Subject.EVENTS: StoredEvent.__struct_fields__, Subject.RESTARTS: RestartProjection.__struct_fields__}


def _silent(position: int, last: int) -> None:
    """Tell nobody."""


def _pages(store: EventStore, wanted: Export, last: int, progress: Progress) -> Iterator[Page]:
    pages = _events if wanted.of is Subject.EVENTS else _restarts
    return pages(store, wanted, last, progress)


def _events(store: EventStore, wanted: Export, last: int, progress: Progress) -> Iterator[list[StoredEvent]]:
    scope = wanted.scope
    with store.read() as reader:
        after, last = _bounds(reader, wanted, last)
        members = None if scope.fleet is None else _members(reader, scope.fleet)
    while after < last:
        asked = EventFilter(after=after, to_position=last, workspace=scope.workspace, limit=_PAGE)
        with store.read() as reader:
            page = reader.stored_events(asked)
        after = page[-1].position if len(page) == _PAGE else last
        kept = page if members is None else [event for event in page if event.workspace in members]
        if kept:
            yield kept
        progress(after, last)


def _restarts(store: EventStore, wanted: Export, last: int, progress: Progress) -> Iterator[list[RestartProjection]]:
    scope, after = wanted.scope, wanted.after
    while after < last:
        asked = RestartFilter(
            workspace=scope.workspace,
            fleet=scope.fleet,
            since=scope.since,
            until=scope.until,
            after=after,
            limit=_PAGE,
        )
        with store.read() as reader:
            page = [record for record in reader.restarts(asked) if record.queued_position <= last]
        after = page[-1].queued_position if len(page) == _PAGE else last
        if page:
            yield page
        progress(after, last)


def _bounds(reader: Reader, wanted: Export, last: int) -> tuple[int, int]:
    """Return the position after which the events in scope begin, and the one at which they end."""
    after, scope = wanted.after, wanted.scope
    if scope.since is not None:
        after = max(after, reader.place_of(_before(scope.since)).position)
    if scope.until is not None:
        last = min(last, reader.place_of(_before(scope.until)).position)
    return after, last


def _before(at: datetime) -> datetime:
    return at - min(_FINEST, at - _FIRST)


def _members(reader: Reader, fleet: str) -> frozenset[str]:
    members: list[str] = []
    while page := reader.workspaces(
        WorkspaceFilter(fleet=fleet, removed=True, after=members[-1] if members else "", limit=_PAGE)
    ):
        members += [stored.state.workspace for stored in page]
    return frozenset(members)
