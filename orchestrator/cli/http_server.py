"""The HTTP server as a part of a process: bound before it starts, so that its URL is known and true."""

from __future__ import annotations

import resource
import socket
import threading

from fastapi import FastAPI

from orchestrator.api.server import create_server
from orchestrator.errors import InvalidInput

UNREAD_MOST_MS = 60_000
"""A client that has taken nothing of what was sent to it for that long is cut off: it would keep a stream for ever."""


_FILES_MOST = 65_536


def allow_many_connections() -> None:
    """Raise the limit of open files as far as this process may: a login's usual 1,024 would refuse held answers.

    For a process that starts no programs: they would inherit it, and some that use select(2) break beyond 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES_MOST if hard == resource.RLIM_INFINITY else min(hard, _FILES_MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class HttpServer:
    """The API's server in a thread."""

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        """Bind. Raises ``InvalidInput`` if the address is taken or not ours."""
        self._socket = _bound(host, port)
        self._server = create_server(app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    @property
    def url(self) -> str:
        """Return where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin serving."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once the server has ended."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let go of the address. Twice does no harm."""
        self._socket.close()

    def stop(self, timeout_s: float) -> None:
        """Take no more requests and wait for those under way."""
        self._server.should_exit = True
        self._thread.join(timeout_s)
        self._socket.close()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP: asyncio turns Nagle's algorithm off only where the protocol says so, and with it on each answer on a
    # kept connection waits for a delayed ACK (measured: 44 ms instead of 3).
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; every connection inherits it
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MOST_MS)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise InvalidInput(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port: --port of `up`,"
            " ORCHESTRATOR_BIND of `api`",
            field="bind",
        ) from None
    bound.listen(2048)
    bound.set_inheritable(False)
    return bound
