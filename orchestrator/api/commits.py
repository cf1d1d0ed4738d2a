"""Waiting for commits on the event loop: no thread a request, and one wake-up for all that a commit has answered."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from orchestrator.ports.store import EventStore
from orchestrator.ports.unit import Answered, AnswerT, Refused, Unit, Wake

_Asked = asyncio.Future[Any]


class Commits:
    """Hands units to the committer for the coroutines of one event loop."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outcomes: deque[tuple[_Asked, Answered | Refused]] = deque()

    async def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Return a unit's answer once it is committed. Raises what ``CoreStore.commit`` does.

        A caller that is cancelled changes nothing: what it has asked for is committed all the same.
        """
        self._loop = asyncio.get_running_loop()
        asked: _Asked = self._loop.create_future()
        self._store.submit(unit, partial(self._tell, asked))
        answer: AnswerT = await asked
        return answer

    def _tell(self, asked: _Asked, outcome: Answered | Refused) -> Wake:
        """Take an outcome from the committer's thread; return what wakes the loop for all of a commit."""
        self._outcomes.append((asked, outcome))
        return self._wake

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever asked
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        while self._outcomes:
            asked, outcome = self._outcomes.popleft()
            if asked.done():
                continue
            if isinstance(outcome, Answered):
                asked.set_result(outcome.answer)
            else:
                asked.set_exception(outcome.error)
