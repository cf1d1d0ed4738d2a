"""Answers that are held open, and streams: they end once their caller would not be let in any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from starlette.concurrency import run_in_threadpool

from orchestrator.errors import OrchestratorError
from orchestrator.service.access import Access, Permit, Principal

LOOK_EVERY_S = 0.25
"""With the half second for which a look at the keys counts, and the look itself, that is less than a second."""

_log = structlog.get_logger("orchestrator")


class HeldAnswers:
    """Looks at the keys for all who hold something by one; nobody of those, no looks."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._held: dict[object, tuple[Principal, Callable[[], None]]] = {}
        self._looker: asyncio.Task[None] | None = None

    @contextmanager
    def held(self, permit: Permit, end: Callable[[], None]) -> Iterator[None]:
        """Call ``end`` once the permit's key is revoked or has expired, as long as the block lasts.

        Raises ``Unauthenticated`` at its end where that was so: then nothing of the answer may be given.
        """
        if permit.principal.key is None:
            yield
            return
        one = object()
        self._held[one] = permit.principal, end
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look())
        try:
            yield
            self._access.need_live(permit.principal)
        finally:
            del self._held[one]

    async def _look(self) -> None:
        while self._held:
            try:
                if self._access.book.is_old:
                    await run_in_threadpool(self._access.book.look)
            except OrchestratorError as error:  # nothing is answered then either: what was known, and the clock, count
                _log.warning("held.keys_not_read", error=str(error))
            for principal, end in list(self._held.values()):
                if not self._access.is_live(principal):
                    end()
            await asyncio.sleep(LOOK_EVERY_S)
