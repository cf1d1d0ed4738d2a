"""A server further away: a TCP proxy through which everything comes a fixed time later, in both directions.

Run as ``python -m bench.distance PORT DELAY_US``; it prints the loopback port that it listens on.
"""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import IO, cast

import psycopg

from bench.machine import ROOT
from tests.servers.process import LOOPBACK

_PINGS = 200


class _Side(asyncio.Protocol):
    """One end of a connection; what it receives goes to ``other``, ``delay_s`` later and in order."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._on_the_way: deque[bytes] = deque()
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Send it on its way; nothing is a chunk's end."""
        self._on_the_way.append(data)
        asyncio.get_running_loop().call_later(self._delay_s, self._arrive)

    def connection_lost(self, error: Exception | None) -> None:
        """Let the other side hear of it as late as of everything else."""
        self.data_received(b"")

    def _arrive(self) -> None:
        data = self._on_the_way.popleft()
        if self.other is None or self.other.transport is None:
            return
        if data:
            self.other.transport.write(data)
        else:
            self.other.transport.close()


class _Near(_Side):
    """The caller's side, which has the server's side made."""

    def __init__(self, port: int, delay_s: float) -> None:
        super().__init__(delay_s)
        self._port = port
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the server; nothing is read before that."""
        super().connection_made(transport)
        near = cast(asyncio.Transport, transport)
        near.pause_reading()
        self._opening = asyncio.get_running_loop().create_task(self._open(near))

    async def _open(self, transport: asyncio.Transport) -> None:
        far = _Side(self._delay_s)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, LOOPBACK, self._port)
        except OSError:
            transport.abort()  # the server behind is down: so it looks from outside
            return
        self.other, far.other = far, self
        transport.resume_reading()


async def _serve(port: int, delay_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Near(port, delay_s), LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(port: int, delay_us: int) -> None:
    """Serve until the process is ended. Timers of ``select`` are exact; those of ``epoll`` are whole milliseconds."""
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_serve(port, delay_us / 1e6))


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A running proxy. ``longer_us``: by how much a round trip of a statement is longer through it, measured."""

    port: int
    pid: int
    longer_us: float


@contextmanager
def further_away(port: int, *, user: str, round_trip_us: int) -> Iterator[Distance]:
    """Yield a proxy to a PostgreSQL, through which a round trip takes so much longer."""
    words = [sys.executable, "-m", "bench.distance", str(port), str(round_trip_us // 2)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        proxied = int(cast(IO[str], process.stdout).readline())
        longer_us = _round_trip_us(proxied, user) - _round_trip_us(port, user)
        yield Distance(port=proxied, pid=process.pid, longer_us=longer_us)
    finally:
        process.kill()
        process.wait()


def _round_trip_us(port: int, user: str) -> float:
    took_us: list[float] = []
    with psycopg.connect(host=LOOPBACK, port=port, user=user, dbname="postgres", autocommit=True) as connection:
        for _ in range(_PINGS):
            began = time.perf_counter()
            connection.execute("SELECT 1")
            took_us.append((time.perf_counter() - began) * 1e6)
    return median(took_us)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
