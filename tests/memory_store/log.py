"""The log in memory: it only grows, but for the appends of a transaction that is rolled back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.events import Recorded
from orchestrator.errors import Conflict


class MemoryLog:
    """Events by position, and the indexes that a database would have.

    One thread writes. Others read at the same time, below a length that was committed before: nothing
    there ever changes. Positions have no gaps here, so an event's position is its place.
    """

    def __init__(self) -> None:
        self._events: list[Recorded] = []
        self._stored: list[StoredEvent] = []
        self._positions: dict[str, list[int]] = {}
        self._unique: dict[tuple[str, object, object], int] = {}

    def __len__(self) -> int:
        return len(self._events)

    def at(self, position: int) -> Recorded:
        """Return the event at a position."""
        return self._events[position - 1]

    def stored(self, position: int) -> StoredEvent:
        """Return the event at a position as a database would keep it."""
        return self._stored[position - 1]

    def add(self, event: Recorded, stored: StoredEvent) -> None:
        """Append an event, also as it is kept. Raises ``Conflict`` where something unique is taken."""
        keys = _unique_keys(event)
        for key in keys:
            if key in self._unique:
                raise Conflict(f"another transaction took {key!r} first; read again and decide again")
        self._events.append(event)
        self._stored.append(stored)
        for key in keys:
            self._unique[key] = event.position
        if event.workspace is not None:
            self._positions.setdefault(event.workspace, []).append(event.position)

    def truncate(self, length: int) -> None:
        """Take back everything above ``length``."""
        while len(self._events) > length:
            event = self._events.pop()
            self._stored.pop()
            for key in _unique_keys(event):
                del self._unique[key]
            if event.workspace is not None:
                self._positions[event.workspace].pop()

    def by_id(self, event: str, *, length: int) -> Recorded | None:
        """Return the event of that id, if it is at or below ``length``."""
        return self._find(("id", event, None), length)

    def by_source(self, source: str, source_id: str, *, length: int) -> Recorded | None:
        """Return the event that a source named so, if it is at or below ``length``."""
        return self._find(("source", source, source_id), length)

    def between(self, first: int, last: int, workspace: str | None = None) -> Iterator[Recorded]:
        """Yield the events from position ``first`` to ``last``, of one workspace or of all."""
        if workspace is None:
            wanted = range(max(first, 1), last + 1)
            return (self.at(position) for position in wanted)
        positions = self._positions.get(workspace, [])
        some = positions[bisect_right(positions, first - 1) : bisect_right(positions, last)]
        return (self.at(position) for position in some)

    def _find(self, key: tuple[str, object, object], length: int) -> Recorded | None:
        position = self._unique.get(key)
        return None if position is None or position > length else self.at(position)


def _unique_keys(event: Recorded) -> list[tuple[str, object, object]]:
    keys: list[tuple[str, object, object]] = [("id", event.id, None)]
    if event.workspace is not None and event.version is not None:
        keys.append(("version", event.workspace, event.version))
    if event.source_id is not None:
        keys.append(("source", event.source, event.source_id))
    return keys
