"""The API's HTTP server: uvicorn on uvloop and httptools, with a stop that streams and held answers cannot delay."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.api.app import stop_waiting

_STOP_WITHIN_S = 2
_KEEP_ALIVE_S = 15
_HEAD_BYTES = 64 * 1024


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which itself keeps all that a head or a trailer brings, however long it is.

    A connection that has sent more than 64 KiB without an end of its head, or a byte of its body, is answered 400.
    """

    _led_nowhere_bytes = 0

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


class ApiServer(uvicorn.Server):
    """Serves one API. ``should_exit = True`` stops it, from any thread; ``run`` and ``serve`` are uvicorn's."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.app = app

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
        http=BoundedHeads,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    return ApiServer(app, config)
