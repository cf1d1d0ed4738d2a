"""The API's HTTP server: uvicorn on uvloop and httptools, with a stop that streams and held answers cannot delay."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Iterable
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from orchestrator.api.app import stop_waiting
from orchestrator.api.gathered_writes import GatheringTransport, gathered_writes
from orchestrator.api.protocol.leaving import tell_finished

_STOP_WITHIN_S = 2
_KEEP_ALIVE_S = 15
_HEAD_BYTES = 64 * 1024
_LOOK_EVERY_TICKS = 45
"""uvicorn ticks ten times a second."""

_IDLE_LOOKS = 6
"""So many looks in a row without a request: 22 s to 28 s."""

_FILES_FOR_ELSE = 160
"""Descriptors that connections leave alone: for databases, pipes, files, and for those that are still being ended."""

_SAY_AGAIN_AFTER_S = 60.0
_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = structlog.get_logger("orchestrator")


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol, which itself keeps connections, and all that a head or a trailer brings, for ever.

    A connection that has sent more than 64 KiB without an end of its head, or a byte of its body, is answered 400. One
    whose client has finished sending is answered. One without a request is ended by ``look``, or by others that come.
    """

    _led_nowhere_bytes = 0
    _idle_looks = 0
    _made_s = 0.0
    _cycle_seen: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; where there are as many as this process may have, those that have waited longest end."""
        self._made_s = time.monotonic()
        super().connection_made(GatheringTransport(transport, gathered_writes()))
        most = connections_most()
        if len(self.connections) > most:
            idle = [each for each in bounded(self.connections) if each.is_idle]
            for each in sorted(idle, key=_used_and_old)[: 1 + most // 16]:
                each.transport.close()

    @property
    def is_idle(self) -> bool:
        """True while no request is answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def look(self) -> None:
        """End the connection if it has brought no request for so many looks."""
        is_new = self.cycle is not self._cycle_seen
        self._cycle_seen = self.cycle
        self._idle_looks = self._idle_looks + 1 if self.is_idle and not is_new else 0
        if self._idle_looks >= _IDLE_LOOKS and not self.transport.is_closing():
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on with a whole request whose client has finished sending; whoever waits in it is told, and may leave."""
        if self.is_idle or self.cycle.more_body:
            self.transport.close()  # with what is still to be sent
            return False
        self.cycle.keep_alive = False
        tell_finished(self.cycle.scope["state"])
        self.cycle.message_event.set()
        return True

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._led_nowhere_bytes += len(data)
        super().data_received(data)
        if self._led_nowhere_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._led_nowhere_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._led_nowhere_bytes = 0
        super().on_body(body)


def bounded(connections: Iterable[object]) -> list[BoundedConnection]:
    """Return the connections as what they all are."""
    return [each for each in connections if isinstance(each, BoundedConnection)]


def _used_and_old(connection: BoundedConnection) -> tuple[bool, float]:
    return connection.cycle is not None, connection._made_s


def connections_most() -> int:
    """Return how many connections this process may have, so that it can still open what it needs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, soft - _FILES_FOR_ELSE) if soft != resource.RLIM_INFINITY else 1_000_000


class OutOfFiles:
    """Says what asyncio would say of each connection that found no descriptor, once a minute."""

    def __init__(self) -> None:
        self._said_s, self._since = -_SAY_AGAIN_AFTER_S, 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take an error of the event loop."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _OUT_OF_FILES:
            loop.default_exception_handler(context)
            return
        self._since += 1
        if time.monotonic() - self._said_s >= _SAY_AGAIN_AFTER_S:
            _log.error("connections.refused", why=str(error), times=self._since, do="raise the limit of open files")
            self._said_s, self._since = time.monotonic(), 0


class ApiServer(uvicorn.Server):
    """Serves one API. ``should_exit = True`` stops it, from any thread; ``run`` and ``serve`` are uvicorn's."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        asyncio.get_running_loop().set_exception_handler(OutOfFiles())
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Look at the connections from time to time."""
        if counter % _LOOK_EVERY_TICKS == 0:
            for connection in bounded(self.server_state.connections):
                connection.look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what waits, then what is left, within a few seconds."""
        await stop_waiting(self.app)
        await super().shutdown(sockets)


def create_server(app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> ApiServer:
    """Return the server of an API, bound to nothing yet: ``run`` binds, or takes sockets that are bound."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedConnection,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        headers=_HEADERS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    return ApiServer(app, config)
