"""The log as NDJSON: one event a line, by position, in pages, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.audit.canonical_line import canonical_lines
from orchestrator.ports import EventFilter, EventStore

_PAGE = 1_000

Progress = Callable[[int, int], None]
"""Takes the position that is exported and the last one that will be."""


def export(
    store: EventStore,
    write: Callable[[str], object],
    after: int = 0,
    workspace: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the events after position ``after`` up to the last one at the start; return how many.

    Each page is a reading transaction of its own: the log only grows, so that changes nothing, and no
    transaction stays open for as long as the reader of the export takes. ``workspace`` None: all events,
    those without a workspace too.
    """
    with store.read() as reader:
        last = reader.last_position()
    exported = 0
    while after < last:
        wanted = EventFilter(after=after, to_position=last, workspace=workspace, limit=_PAGE)
        with store.read() as reader:
            page = reader.stored_events(wanted)
        if page:
            write(canonical_lines(page).decode())
        exported += len(page)
        after = page[-1].position if len(page) == _PAGE else last
        if progress is not None:
            progress(after, last)
    return exported
