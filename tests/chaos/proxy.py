"""A TCP proxy that misbehaves on demand: slow, deaf, cut off, refusing, or keeping every answer to itself."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from tests.servers.process import LOOPBACK, free_port
from tests.waiting import wait_until

_CHUNK = 65_536
_COMMIT = b"COMMIT\x00"
"""The statement as PostgreSQL's protocol carries it; READ COMMITTED is another thing."""


class Mode(Enum):
    """What becomes of the bytes."""

    PASS = "pass"
    DELAY = "delay"
    """Every chunk comes late, in both directions."""
    HOLE = "hole"
    """Connections stay open and nothing comes through: a network that drops packets."""
    SWALLOW = "swallow"
    """Requests are forwarded, answers are kept: a commit happens, and nobody is told."""
    REFUSE = "refuse"
    """New connections are closed at once."""


class Proxy:
    """Listens on a loopback port of its own and forwards to ``port``, as its ``mode`` says at that moment."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.port = free_port()
        self._mode = Mode.PASS
        self.delay_s = 0.05
        self.swallowed = 0
        """Chunks of answers that were kept so far."""
        self._loses_commit = False
        self._open: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._passes = asyncio.Event()
        self._passes.set()

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        assert self._loop is not None
        self._mode = mode
        self._loop.call_soon_threadsafe(self._passes.clear if mode is Mode.HOLE else self._passes.set)

    def lose_next_commit(self) -> None:
        """Forward the next COMMIT and cut its connection when the answer comes: done, and nobody is told."""
        self._loses_commit = True

    def cut(self) -> None:
        """Close every open connection, in both directions."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accepted, LOOPBACK, self.port)
        async with server:
            await self._over.wait()
            self._cut()

    def stop(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.REFUSE:
            writer.transport.abort()
            return
        try:
            answers, requests = await asyncio.open_connection(LOOPBACK, self._upstream)
        except OSError:
            writer.transport.abort()  # the server behind is down: so it looks from outside
            return
        both = {writer, requests}
        self._open |= both
        link = _Link()
        try:
            await asyncio.gather(self._requests(reader, requests, link), self._answers(answers, writer, link))
        except OSError:
            pass  # one side is gone: so is the other, next
        finally:
            self._open -= both
            for side in both:
                side.transport.abort()

    async def _requests(self, caller: asyncio.StreamReader, server: asyncio.StreamWriter, link: _Link) -> None:
        while chunk := await self._read(caller):
            if self._loses_commit and _COMMIT in chunk:
                self._loses_commit, link.loses_next = False, True
            server.write(chunk)
            await server.drain()
        server.transport.abort()

    async def _answers(self, server: asyncio.StreamReader, caller: asyncio.StreamWriter, link: _Link) -> None:
        while chunk := await self._read(server):
            if link.loses_next or self.mode is Mode.SWALLOW:
                self.swallowed += 1
                if link.loses_next:
                    break
                continue
            caller.write(chunk)
            await caller.drain()
        caller.transport.abort()

    async def _read(self, source: asyncio.StreamReader) -> bytes:
        """Return what came next, when it may pass; nothing at the end."""
        chunk = await source.read(_CHUNK)
        await self._passes.wait()
        if self.mode is Mode.DELAY:
            await asyncio.sleep(self.delay_s)
        return chunk


@dataclass
class _Link:
    """One connection. ``loses_next``: its next answer is lost, and it with it."""

    loses_next: bool = False


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Yield a proxy in front of a loopback port."""
    proxy = Proxy(port)
    serving = threading.Thread(target=lambda: asyncio.run(proxy.serve()), name=f"proxy-{port}", daemon=True)
    serving.start()
    wait_until(lambda: _listens(proxy.port), what="the proxy listens")
    try:
        yield proxy
    finally:
        proxy.stop()
        serving.join(10)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((LOOPBACK, port)) == 0
