"""The newest part of the log in memory, bounded, so that all who follow it are served by one read of the database."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.errors import Unreadable
from orchestrator.history.views import stored_event_view
from orchestrator.ports.store import EventFilter

MOST_EVENTS = 4_096
MOST_BYTES = 8 * 1024 * 1024

CHUNK_EVENTS = 100
_CHUNK_BYTES = 64 * 1024
"""What is handed to one stream at once: so much is kept for each that does not read."""

_encode = msgspec.json.Encoder().encode
_position = attrgetter("position")


class Spelled(NamedTuple):
    """An event as streams say it. Nobody can read the one that has an error instead of a frame."""

    position: int
    workspace: str | None
    type: str
    frame: bytes
    error: Unreadable | None


def spell(event: StoredEvent) -> Spelled:
    """Return an event as server-sent events have it."""
    try:
        data = _encode(stored_event_view(event))
    except Unreadable as error:
        return Spelled(event.position, event.workspace, event.type, b"", error)
    frame = b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), data)
    return Spelled(event.position, event.workspace, event.type, frame, None)


class Recent:
    """All events after the position ``after``, up to the last one that was added."""

    def __init__(self, *, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        self._most_events, self._most_bytes = most_events, most_bytes
        self.after = 0
        self._events: list[Spelled] = []
        self._bytes = 0

    def begin(self, after: int) -> None:
        """Forget everything: the next event to be added is the first one after that position."""
        self.after = after
        self._events.clear()
        self._bytes = 0

    def add(self, events: Sequence[Spelled]) -> None:
        """Add the next events of the log; the oldest make room."""
        self._events += events
        self._bytes += sum(len(event.frame) for event in events)
        old = 0
        while len(self._events) - old > self._most_events or self._bytes > self._most_bytes:
            self._bytes -= len(self._events[old].frame)
            old += 1
        if old:
            self.after = self._events[old - 1].position
            del self._events[:old]

    def holds_all_after(self, position: int) -> bool:
        """Return whether everything after that position is here."""
        return position >= self.after

    def take(self, wanted: EventFilter) -> tuple[int, list[bytes]]:
        """Return the frames of wanted events, a chunk of them, and the position up to which that is all there is."""
        first = bisect_right(self._events, wanted.after, key=_position)
        return chunk(self._events[first:], wanted)


def chunk(events: Sequence[Spelled], wanted: EventFilter) -> tuple[int, list[bytes]]:
    """Return the frames of the first wanted ones, and the position up to which that is all there is of them.

    It ends before an event that cannot be read. Raises ``Unreadable`` where that is the first wanted one.
    """
    seen, frames, left = wanted.after, list[bytes](), _CHUNK_BYTES
    for event in events:
        if wanted.workspace in (None, event.workspace) and (not wanted.types or event.type in wanted.types):
            if event.error is not None and not frames:
                raise event.error
            if event.error is not None or left <= 0 or len(frames) == CHUNK_EVENTS:
                break
            frames.append(event.frame)
            left -= len(event.frame)
        seen = event.position
    return seen, frames
