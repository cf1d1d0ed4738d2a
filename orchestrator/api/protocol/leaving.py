"""A client that has finished sending may still read: what does not end by itself ends then, all else is answered.

Most such clients are gone, and only writing to them would show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope

_FINISHED = "has_finished_sending"


def tell_finished(state: dict[str, Any]) -> None:
    """Note in a request's state that its client has finished sending; the server lets its ``receive`` return then."""
    state[_FINISHED] = True


def watched(scope: Scope, receive: Receive, end: Callable[[], None]) -> Receive:
    """Return ``receive``, which calls ``end`` as soon as it finds that the client has finished sending."""

    async def received() -> Message:
        message = await receive()
        if scope["state"].get(_FINISHED):
            end()
        return message

    return received
