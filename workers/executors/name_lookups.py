"""Looking names up beside the look that asks: a resolver that does not answer holds nobody up.

asyncio looks names up in threads that it waits for when its loop ends, and the process does when it exits: for as long
as the resolver takes, whatever the time limit of who asked. Here the threads are left behind.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from typing import Any

_Asked = tuple[Any, ...]
_Found = list[tuple[Any, ...]]

_lock = threading.Lock()
under_way: dict[_Asked, Future[_Found]] = {}
"""The look-ups that have not been answered yet."""


class LookingLoop(asyncio.SelectorEventLoop):
    """An event loop whose name look-ups can be abandoned. Who asks the same meanwhile waits for the same answer."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> _Found:
        """Return what ``socket.getaddrinfo`` does. Raises ``OSError``."""
        return await asyncio.wrap_future(_look_up((host, port, family, type, proto, flags)), loop=self)


def _look_up(asked: _Asked) -> Future[_Found]:
    """Return the look-up of this that is under way, or begin one. One that hangs costs one thread, however many ask."""
    with _lock:
        found = under_way.get(asked)
        if found is None:
            found = under_way[asked] = Future()
            found.set_running_or_notify_cancel()  # nobody who gives up cancels it for the others
            threading.Thread(target=_ask, args=(asked, found), name="name-lookup", daemon=True).start()
    return found


def _ask(asked: _Asked, answer: Future[_Found]) -> None:
    try:
        found = socket.getaddrinfo(*asked)
    except BaseException as error:  # noqa: BLE001 (raised again in who asked)
        outcome: BaseException | None = error
    else:
        outcome = None
    with _lock:
        del under_way[asked]
    if outcome is not None:
        answer.set_exception(outcome)
    else:
        answer.set_result(found)
