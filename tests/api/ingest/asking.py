"""Requests to an ASGI app as a server hands them over, byte for byte, and what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

Headers = Sequence[tuple[bytes, bytes]]
NEVER_ENDS = "never ends"
GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request. ``ending``: the body stops without its end (``NEVER_ENDS``), or its caller is ``GONE``."""

    method: str = "POST"
    target: str
    headers: Headers = ()
    body: Sequence[bytes] = (b"",)
    ending: str = ""

    def scope(self) -> dict[str, Any]:
        """Return it as uvicorn says it."""
        raw_path, _, query = self.target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8321),
            "client": ("127.0.0.1", 4321),
            "scheme": "http",
            "root_path": "",
            "method": self.method,
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "headers": list(self.headers),
            "state": {},
        }

    def messages(self) -> list[Message]:
        """Return the body's pieces as messages."""
        last = len(self.body) - 1
        found: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": number < last or bool(self.ending)}
            for number, piece in enumerate(self.body)
        ]
        return [*found, {"type": "http.disconnect"}] if self.ending == GONE else found


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an app answered; ``status`` 0: nothing."""

    status: int = 0
    headers: Headers = ()
    body: bytes = b""


async def ask(app: ASGIApp, request: Request) -> Answer:
    """Send one request to an app."""
    waiting, sent = request.messages(), list[Message]()

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(request.scope(), receive, send)
    if not sent:
        return Answer()
    start, rest = sent[0], sent[1:]
    body = b"".join(message.get("body", b"") for message in rest)
    return Answer(status=start["status"], headers=start["headers"], body=body)
