"""The log's end, followed once for a whole process, however many streams and held answers it has.

The follower reads what has come, in pages, on a thread of its own at most; it wakes those whom that concerns, and
nobody else. While nobody waits it sends no statement.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from orchestrator.api.recent import Recent, Spelled, spell
from orchestrator.api.watches import Watch, Watches
from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.errors import OrchestratorError
from orchestrator.ports.store import CoreStore, EventFilter

LOOK_AGAIN_S = 1.0
"""After trouble with the database."""

_SHORTEST_S = 0.025
_LONGEST_S = 0.25
"""Between two reads: the shortest while something comes; every read that finds nothing doubles it."""

_SHARE = 4
"""It waits so many times as long as it took to wake all who were concerned: many streams get larger pages instead of
taking the event loop from the writes."""

_FAILURES_MOST = 2
"""In a row; then it is not the database that is away, but something in the page that cannot be read."""

_PAGE = 500
_WOKEN_AT_ONCE = 32
_log = structlog.get_logger("orchestrator")


class LogTail:
    """Follows the log while anybody watches it. ``position``: up to there it has read, and woken whom it concerned."""

    def __init__(self, store: CoreStore) -> None:
        self.position = 0
        self.recent = Recent()
        self.stopped = asyncio.Event()
        self._store = store
        self._watches, self._readers = Watches(), 0
        self._follower: asyncio.Task[None] | None = None
        self._nudged = asyncio.Event()
        self._thread = CapacityLimiter(1)

    @property
    def stopping(self) -> bool:
        """True once the server is told to stop."""
        return self.stopped.is_set()

    @property
    def watched_by(self) -> int:
        """How many watch the log now."""
        return len(self._watches)

    @property
    def follows(self) -> bool:
        """False while nobody watches: then nothing is read."""
        return self._follower is not None and not self._follower.done()

    @contextmanager
    def watching(
        self, workspace: str | None, types: frozenset[str], *, after: int, reads: bool = False
    ) -> Iterator[Watch]:
        """Give a watch that misses nothing of what comes after the log's position ``after``, or after ``position``.

        The later one counts: whoever has looked at the log before ``position`` has to look once more. ``reads``: it
        takes the events themselves out of ``recent``.
        """
        watch = Watch(workspace, types)
        watch.ended = self.stopping
        self._watches.add(watch)
        self._readers += reads
        if not self.follows:
            self.position = after
            self.recent.begin(after)
            self._follower = asyncio.create_task(self._follow())
        try:
            yield watch
        finally:
            self._readers -= reads
            self._watches.remove(watch)

    def nudge(self) -> None:
        """Say that this process has just changed something: the next read comes soon."""
        self._nudged.set()

    def stop(self) -> None:
        """End every wait, now and from now on."""
        self.stopped.set()
        self.nudge()
        for watch in self._watches:
            watch.end()

    async def _follow(self) -> None:
        pause_s, failures = _SHORTEST_S, 0
        while self._watches and not self.stopping:
            self._nudged.clear()
            try:
                page, spelled = await run_sync(self._read, self.position, self._readers > 0, limiter=self._thread)
            except OrchestratorError as error:
                failures += 1
                _log.warning("tail.waits", error=str(error), again_in_s=LOOK_AGAIN_S)
                await asyncio.sleep(LOOK_AGAIN_S)
                if failures >= _FAILURES_MOST:
                    await self._pass_over()
                continue
            failures, began_s = 0, time.monotonic()
            await self._tell(page, spelled)
            if len(page) < _PAGE:
                pause_s = _SHORTEST_S if page else min(2 * pause_s, _LONGEST_S)
                await self._pause(max(_SHORTEST_S, _SHARE * (time.monotonic() - began_s)), pause_s)

    async def _pass_over(self) -> None:
        """Go on behind what cannot be read, if the database serves else: all who watch look for themselves."""
        try:
            newest = await run_sync(self._last_position, limiter=self._thread)
        except OrchestratorError:
            return  # it is away; the next read says so
        before, self.position = self.position, newest
        self.recent.begin(newest)
        for watch in self._watches:
            watch.touch(before)
            watch.release()

    def _last_position(self) -> int:
        with self._store.read() as reader:
            return reader.last_position()

    def _read(self, after: int, for_readers: bool) -> tuple[list[StoredEvent], list[Spelled]]:
        with self._store.read() as reader:
            page = reader.stored_events(EventFilter(after=after, limit=_PAGE))
        return page, [spell(event) for event in page] if for_readers else []

    async def _tell(self, page: Sequence[StoredEvent], spelled: Sequence[Spelled]) -> None:
        if not page:
            return
        before, self.position = self.position, page[-1].position
        if spelled:
            self.recent.add(spelled)
        else:
            self.recent.begin(self.position)
        concerned = self._watches.note(page, before)
        for start in range(0, len(concerned), _WOKEN_AT_ONCE):
            for watch in concerned[start : start + _WOKEN_AT_ONCE]:
                watch.release()
            await asyncio.sleep(0)  # what others have sent meanwhile comes between

    async def _pause(self, least_s: float, most_s: float) -> None:
        """Wait for ``least_s``, and on up to ``most_s`` unless somebody nudges."""
        await asyncio.sleep(least_s)
        try:
            async with asyncio.timeout(max(0.0, most_s - least_s)):
                await self._nudged.wait()
        except TimeoutError:
            return
