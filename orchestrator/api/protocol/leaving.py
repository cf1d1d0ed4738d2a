"""A client that has finished sending may still read: what does not end by itself ends then, all else is answered."""

from __future__ import annotations

from starlette.types import Message, Receive


def ends_with_sender(receive: Receive) -> Receive:
    """Return ``receive`` of a request without a body, for an answer that waits for what may never come.

    The server tells the end of what a client sends as one more, empty, piece of the body. Most such clients are gone,
    and only writing to them would show it.
    """
    has_come = False

    async def received() -> Message:
        nonlocal has_come
        message = await receive()
        if has_come or message["type"] != "http.request":
            return {"type": "http.disconnect"}
        has_come = not message.get("more_body", False)
        return message

    return received
