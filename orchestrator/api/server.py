"""The API's HTTP server: uvicorn, with a stop that streams and held answers cannot delay."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from orchestrator.api.app import stop_waiting

_STOP_WITHIN_S = 2
_KEEP_ALIVE_S = 15


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
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    return ApiServer(app, config)
