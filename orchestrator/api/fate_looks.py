"""Fates of writes for all who ask at the same time: one reading transaction, one thread, whatever their number."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from itertools import islice

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from orchestrator.api.services import Desk
from orchestrator.domain.scopes import Scope
from orchestrator.errors import Unavailable
from orchestrator.history.fate import Fate, fate_of, fates_of, unknown_write
from orchestrator.ports.store import CoreStore
from orchestrator.service.access import Permit

_AT_ONCE = 100

Seen = tuple[int, Fate]
"""A fate, and the log's last position at the state of the database that it was read from."""


class FateLooks:
    """Looks up fates. Who asks while a look is under way is served by the next one, with all others who have asked."""

    def __init__(self, desk: Desk, store: CoreStore) -> None:
        self._desk, self._store = desk, store
        self._asked: dict[str, list[asyncio.Future[Seen]]] = {}
        self._looker: asyncio.Task[None] | None = None
        self._thread = CapacityLimiter(1)

    async def look(self, write: str, permit: Permit) -> Seen:
        """Return what has become of a write or request.

        Raises ``NotFound``, ``Forbidden``, ``Unreadable``, ``Unavailable``. Whoever may see a part only has
        a look of their own: nobody else's answer is theirs.
        """
        permit.need(Scope.READ)
        if not permit.reach.everywhere:
            return await run_sync(self._look_for_one, write, permit)
        answer: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(write, []).append(answer)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look_for_all())
        return await answer

    def _look_for_one(self, write: str, permit: Permit) -> Seen:
        with self._desk.read(permit) as reader:
            return reader.last_position(), fate_of(reader, write)

    async def _look_for_all(self) -> None:
        while self._asked:
            batch = {write: self._asked.pop(write) for write in list(islice(self._asked, _AT_ONCE))}
            try:
                found: Mapping[str, Seen | Exception] = await run_sync(
                    _look_up, self._store, list(batch), limiter=self._thread
                )
            except Exception as error:  # noqa: BLE001 (raised again in each who asked)
                found = dict.fromkeys(batch, error)
            for write, answers in batch.items():
                _answer(answers, found[write])


def _answer(answers: Collection[asyncio.Future[Seen]], found: Seen | Exception) -> None:
    for answer in answers:
        if answer.done():  # whoever asked has left
            continue
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)


def _look_up(store: CoreStore, writes: Collection[str]) -> Mapping[str, Seen | Exception]:
    try:
        with store.read() as reader:
            position, found = reader.last_position(), fates_of(reader, writes)
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 (whose it is is found one by one: it must not become everybody's)
        return {write: _look_up_one(store, write) for write in writes}
    return {write: (position, found[write]) if write in found else unknown_write(write) for write in writes}


def _look_up_one(store: CoreStore, write: str) -> Seen | Exception:
    try:
        with store.read() as reader:
            return reader.last_position(), fate_of(reader, write)
    except Exception as error:  # noqa: BLE001 (raised again in whoever asked)
        return error
