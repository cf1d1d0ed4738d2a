"""One who follows the log from a position on: out of memory while it keeps up, from the database while it does not."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from orchestrator.api.recent import CHUNK_EVENTS, chunk, spell
from orchestrator.api.tail import LOOK_AGAIN_S, LogTail
from orchestrator.api.watches import Watch
from orchestrator.errors import Unavailable, Unreadable
from orchestrator.ports.store import CoreStore, EventFilter

_BEHIND_AT_ONCE = 4
_log = structlog.get_logger("orchestrator")


class Archive:
    """The part of the log that memory does not reach: a few of those who are behind read it at a time."""

    def __init__(self, store: CoreStore) -> None:
        self._store = store
        self._threads = CapacityLimiter(_BEHIND_AT_ONCE)

    async def take(self, wanted: EventFilter) -> tuple[int, list[bytes]]:
        """Return frames of the wanted events, and the position up to which that is all. Raises what a reader raises."""
        return await run_sync(self._take, wanted, limiter=self._threads)

    def _take(self, wanted: EventFilter) -> tuple[int, list[bytes]]:
        with self._store.read() as reader:
            page = reader.stored_events(wanted)
        seen, frames = chunk([spell(event) for event in page], wanted)
        # A short page was all there is up to `to_position`, also where the filter lets nothing through.
        is_all = len(page) < wanted.limit and (not page or seen == page[-1].position)
        return (seen if wanted.to_position is None or not is_all else wanted.to_position), frames


class Listener:
    """A stream's place in the log."""

    def __init__(self, archive: Archive, tail: LogTail, watch: Watch, wanted: EventFilter) -> None:
        """``wanted.after`` is where it begins."""
        self._archive, self._tail, self._watch, self._wanted = archive, tail, watch, wanted
        self.seen = wanted.after

    async def frames(self, timeout_s: float) -> bytes:
        """Return what comes next, as frames; nothing where that time has passed, or at a stop."""
        until_s = time.monotonic() + timeout_s
        while not self._watch.ended and (left_s := until_s - time.monotonic()) > 0:
            if self.seen < self._tail.position:
                found = await self._take(left_s)
                if found:
                    return b"".join(found)
            else:
                await self._await_news(left_s)
        return b""

    async def _await_news(self, timeout_s: float) -> None:
        """Wait for what it watches; what came before that was nothing to it."""
        self._watch.clear()
        await self._watch.wait(timeout_s)
        touched = self._watch.touched_after
        self.seen = max(self.seen, self._tail.position if touched is None else touched)

    async def _take(self, left_s: float) -> list[bytes]:
        wanted = replace(self._wanted, after=self.seen, to_position=self._tail.position, limit=CHUNK_EVENTS)
        try:
            self.seen, frames = await self._found(wanted)
        except (Unavailable, Unreadable) as error:
            # An event that cannot be read stays so until somebody mends it.
            pause_s = LOOK_AGAIN_S if isinstance(error, Unavailable) else left_s
            _log.warning("stream.waits", error=str(error), again_in_s=round(pause_s, 1))
            await self._stand_still(pause_s)
            return []
        return frames

    async def _found(self, wanted: EventFilter) -> tuple[int, list[bytes]]:
        if self._tail.recent.holds_all_after(wanted.after):
            try:
                found = self._tail.recent.take(wanted)
            except Unreadable:  # it may have been mended since
                return await self._archive.take(wanted)
            await asyncio.sleep(0)  # others come between the chunks of one who has much to take
            return found
        return await self._archive.take(wanted)

    async def _stand_still(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._tail.stopped.wait()
        except TimeoutError:
            return
