"""A TCP proxy that lets requests through and keeps the answers to itself, as a network that fails at the worst time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from tests.servers.process import LOOPBACK

_CHUNK = 65_536


class SwallowingProxy:
    """Forwards one connection to ``upstream``; ``answered`` is set once an answer came, which goes no further."""

    def __init__(self, upstream: str, listener: socket.socket) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or LOOPBACK, parts.port or 80)
        self._listener = listener
        self.answered = threading.Event()
        self._release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def hang_up(self) -> None:
        """Close the caller's connection without a byte of the answer."""
        self._release.set()

    def serve(self) -> None:
        caller, _ = self._listener.accept()
        with closing(caller), closing(socket.create_connection(self._upstream)) as api:
            forward = threading.Thread(target=_forward, args=(caller, api), daemon=True)
            forward.start()
            if api.recv(_CHUNK):
                self.answered.set()
            self._release.wait()
            for side in (caller, api):  # a close alone says nothing while the other thread reads
                _shut(side)
            forward.join(5)


def _forward(caller: socket.socket, api: socket.socket) -> None:
    """Forward until either side has closed."""
    try:
        while chunk := caller.recv(_CHUNK):
            api.sendall(chunk)
    except ConnectionError:
        return  # the API was killed


def _shut(side: socket.socket) -> None:
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other end is gone already


@contextmanager
def swallowing_proxy(upstream: str) -> Iterator[SwallowingProxy]:
    """Yield a proxy that serves one connection."""
    with closing(socket.create_server((LOOPBACK, 0))) as listener:
        proxy = SwallowingProxy(upstream, listener)
        serving = threading.Thread(target=proxy.serve, daemon=True)
        serving.start()
        try:
            yield proxy
        finally:
            proxy.hang_up()
            serving.join(5)
