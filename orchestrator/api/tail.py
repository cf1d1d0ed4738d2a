"""The end of the log, watched once for a whole process however many streams and waiting answers it has."""

from __future__ import annotations

import asyncio

import structlog
from starlette.concurrency import run_in_threadpool

from orchestrator.errors import Unavailable
from orchestrator.ports.store import CoreStore

LOOK_EVERY_S = 0.15
LOOK_AGAIN_S = 1.0

_log = structlog.get_logger("orchestrator")


class LogTail:
    """Tells waiting coroutines that the log has grown. Looks only while somebody waits."""

    def __init__(self, store: CoreStore) -> None:
        self._store = store
        self._position = 0
        self._grown = asyncio.Condition()
        self._waiting = 0
        self._looker: asyncio.Task[None] | None = None
        self.stopping = False

    async def wait_beyond(self, position: int, timeout_s: float) -> int | None:
        """Return the log's last position once it is above ``position``; None after ``timeout_s`` or at a stop."""
        self._waiting += 1
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(timeout_s), self._grown:
                await self._grown.wait_for(lambda: self.stopping or self._position > position)
            return None if self.stopping else self._position
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        """End every wait, now and from now on."""
        self.stopping = True
        async with self._grown:
            self._grown.notify_all()

    async def _look(self) -> None:
        while self._waiting and not self.stopping:
            try:
                position = await run_in_threadpool(self._last_position)
            except Unavailable as error:
                _log.warning("tail.waits", error=str(error), again_in_s=LOOK_AGAIN_S)
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            if position != self._position:
                self._position = position
                async with self._grown:
                    self._grown.notify_all()
            await asyncio.sleep(LOOK_EVERY_S)

    def _last_position(self) -> int:
        with self._store.read() as reader:
            return reader.last_position()
