"""The API's HTTP server: uvicorn, with a stop that streams and held answers cannot delay."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from orchestrator.api.app import create_app, stop_waiting
from orchestrator.bootstrap import Services

_STOP_WITHIN_S = 3
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


def create_server(services: Services, *, host: str | None = None, port: int | None = None) -> ApiServer:
    """Return the server, bound to nothing yet.

    ``host`` and ``port`` default to the settings'; port 0 takes a free one.
    """
    app = create_app(services)
    config = uvicorn.Config(
        app,
        host=services.settings.host if host is None else host,
        port=services.settings.port if port is None else port,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    return ApiServer(app, config)
