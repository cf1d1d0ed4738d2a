"""Who waits for what of the log: whom an event concerns is told, everybody else is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.domain.events import CycleSucceeded, WritesWaived

_NEWER = "a type that this version does not know"
SETTLING = frozenset({CycleSucceeded.type_name(), WritesWaived.type_name(), _NEWER})
"""Types of events that can make a fate final. Those of a newer version might: whoever waits looks for himself."""


class Watch:
    """One who waits for events of a workspace (None: of any) and of some types (none: of all).

    It may be busy when they come: they are noted until it asks.
    """

    __slots__ = ("_waits", "ended", "touched_after", "types", "workspace")

    def __init__(self, workspace: str | None, types: frozenset[str]) -> None:
        self.workspace, self.types = workspace, types
        self.touched_after: int | None = None
        """What it watches has come since it last cleared this; up to that position there was nothing."""
        self.ended = False
        """Nobody waits any more: its caller has left, or the server stops."""
        self._waits: asyncio.Future[None] | None = None

    def touch(self, after: int) -> bool:
        """Note that something came after that position; return whether that is news."""
        if self.touched_after is not None:
            return False
        self.touched_after = after
        return True

    def clear(self) -> None:
        """Forget what was noted, before looking at what there is."""
        self.touched_after = None

    def end(self) -> None:
        """End its waits, now and from now on."""
        self.ended = True
        self.release()

    def release(self) -> None:
        """End the wait under way, if there is one."""
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return once something is noted, the time is up or the watch has ended."""
        if self.touched_after is not None or self.ended:
            return
        loop = asyncio.get_running_loop()
        self._waits = loop.create_future()
        timer = loop.call_later(timeout_s, self.release)
        try:
            await self._waits
        finally:
            timer.cancel()
            self._waits = None


class Watches:
    """All watches of a process. What an event costs does not grow with those that it does not concern."""

    def __init__(self) -> None:
        self._of: dict[str | None, set[Watch]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Watch]:
        return iter([watch for watches in self._of.values() for watch in watches])

    def add(self, watch: Watch) -> None:
        """Take a watch in."""
        self._of.setdefault(watch.workspace, set()).add(watch)
        self._count += 1

    def remove(self, watch: Watch) -> None:
        """Let a watch go."""
        alike = self._of[watch.workspace]
        alike.remove(watch)
        self._count -= 1
        if not alike:
            del self._of[watch.workspace]

    def note(self, events: Iterable[StoredEvent], after: int) -> list[Watch]:
        """Note events, the next ones after a position, with the watches that they concern; return those."""
        types_of: dict[str | None, set[str]] = {None: set()}
        for event in events:
            name = event.type if event.type in EVENT_TYPES else _NEWER
            types_of[None].add(name)
            if event.workspace in self._of:
                types_of.setdefault(event.workspace, set()).add(name)
        concerned: list[Watch] = []
        for workspace, types in types_of.items():
            for watch in self._of.get(workspace, ()):
                is_for_it = types and not (watch.types and watch.types.isdisjoint(types))
                if is_for_it and watch.touch(after):
                    concerned.append(watch)
        return concerned
