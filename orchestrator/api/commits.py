"""Waiting for commits on the event loop: no thread a request, and one wake-up for all that a commit has answered."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from orchestrator.ports.store import EventStore
from orchestrator.ports.unit import Answered, AnswerT, Refused, Unit

_Asked = asyncio.Future[Any]


class Commits:
    """Hands units to the committer for the coroutines of one event loop."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._outcomes: deque[tuple[_Asked, Answered | Refused]] = deque()
        self._is_told = False

    async def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Return a unit's answer once it is committed. Raises what ``CoreStore.commit`` does.

        A caller that is cancelled changes nothing: what it has asked for is committed all the same.
        """
        loop = asyncio.get_running_loop()
        asked: _Asked = loop.create_future()
        self._store.submit(unit, partial(self._tell, loop, asked))
        answer: AnswerT = await asked
        return answer

    def _tell(self, loop: asyncio.AbstractEventLoop, asked: _Asked, outcome: Answered | Refused) -> None:
        """Take an outcome from the committer's thread."""
        self._outcomes.append((asked, outcome))
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the loop has ended, and with it whoever asked
                loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._is_told = False
        while self._outcomes:
            asked, outcome = self._outcomes.popleft()
            if asked.done():
                continue
            if isinstance(outcome, Answered):
                asked.set_result(outcome.answer)
            else:
                asked.set_exception(outcome.error)
