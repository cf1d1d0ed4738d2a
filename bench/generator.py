"""Requests over kept connections, as fast as they are answered: one process, one selector, no framework.

Run as ``python -m bench.generator`` with an order in JSON on stdin; answers in JSON on stdout. Standard library only:
what it costs is part of what is measured, and ``wrk`` is not on every machine. It sends the next request of a
connection when the last one was answered, so it never asks faster than it is served.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_READ_BYTES = 65_536
_SILENT_S = 60.0
"""A server that answers nobody for that long is taken for dead."""


@dataclass
class Tally:
    """What came back. Latencies are microseconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_us: array[float] = field(default_factory=lambda: array("d"))
    refused: str = ""
    """The first answer that was not the wanted one, for whoever has to find out why."""


class Connection:
    """One kept connection and the request that is under way on it."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._received = b""
        self._whole_at = 0
        self.sent_at = 0.0
        self._unsent = b""

    def ask(self, request: bytes) -> bool:
        """Send a request; False if the kernel took only a part, and ``flush`` has to go on."""
        self.sent_at = time.perf_counter()
        self._unsent = request
        return self.flush()

    def flush(self) -> bool:
        """Send what is left; True if that was all."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:] if sent < len(self._unsent) else b""
        return not self._unsent

    def answer(self) -> bytes | None:
        """Read what is there; return the answer once it is whole. Raises ``ConnectionError`` at its end."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionError("the server closed a kept connection")
        data = self._received = self._received + data if self._received else data
        if not self._whole_at:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return None
            length = _LENGTH.search(data, 0, head + 2)
            if length is None:
                raise ConnectionError(f"an answer without content-length: {data[:200]!r}")
            self._whole_at = head + 4 + int(length[1])
        if len(data) < self._whole_at:
            return None
        self._received, self._whole_at = b"", 0
        return data


def drive(
    host: str, ports: Sequence[int], requests: Sequence[bytes], *, connections: int, seconds: float, wanted: int
) -> Tally:
    """Ask over ``connections``, spread over the ports, for ``seconds``, then wait for what is under way."""
    tally, poller = Tally(), select.epoll()
    opened = [Connection(host, ports[number % len(ports)]) for number in range(connections)]
    by_number = {connection.socket.fileno(): connection for connection in opened}
    for number in by_number:
        poller.register(number, select.EPOLLIN)
    following = _endless(requests)
    until = time.perf_counter() + seconds
    for number, connection in by_number.items():
        _ask(poller, number, connection, next(following))
    busy = len(by_number)
    while busy:
        ready = poller.poll(_SILENT_S)
        if not ready:
            raise TimeoutError(f"no answer for {_SILENT_S:g} s, {busy} requests under way")
        for number, what in ready:
            connection = by_number[number]
            if what & select.EPOLLOUT and connection.flush():
                poller.modify(number, select.EPOLLIN)
            answer = connection.answer() if what & ~select.EPOLLOUT else None
            if answer is None:
                continue
            now = time.perf_counter()
            _count(tally, answer, (now - connection.sent_at) * 1e6, wanted)
            if now < until:
                _ask(poller, number, connection, next(following))
            else:
                busy -= 1
    for connection in opened:
        connection.socket.close()
    return tally


def _ask(poller: select.epoll, number: int, connection: Connection, request: bytes) -> None:
    if not connection.ask(request):
        poller.modify(number, select.EPOLLIN | select.EPOLLOUT)


def _count(tally: Tally, answer: bytes, latency_us: float, wanted: int) -> None:
    status = int(answer[9:12])
    tally.statuses[status] += 1
    tally.latencies_us.append(latency_us)
    if status != wanted and not tally.refused:
        tally.refused = answer[:600].decode(errors="replace")


def _endless(requests: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


def post(path: str, host: str, body: bytes, *, key: str = "") -> bytes:
    """Return a POST of a JSON body, with a key where one is given, as bytes on the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    if key:
        head += f"authorization: Bearer {key}\r\n"
    return f"{head}\r\n".encode() + body


def saves(host: str, *, workspaces: int, first: int = 0, files: int = 17, key: str = "") -> list[bytes]:
    """Return one write of each of so many files for each workspace, workspace after workspace."""
    found = []
    for file in range(files):
        body = json.dumps(
            {"path": f"src/app/module_{file:02}/view.py", "op": "modified"}, separators=(",", ":")
        ).encode()
        for number in range(first, first + workspaces):
            found.append(post(f"/v1/workspaces/ws-{number:06}/writes", host, body, key=key))
    return found


def batches(host: str, *, workspaces: int, size: int, first: int = 0, key: str = "") -> list[bytes]:
    """Return the same writes, ``size`` in a request."""
    writes = [
        {"workspace": f"ws-{number:06}", "path": f"src/app/module_{file:02}/view.py", "op": "modified"}
        for file in range(17)
        for number in range(first, first + workspaces)
    ]
    whole = [writes[start : start + size] for start in range(0, len(writes) - size + 1, size)]
    return [post("/v1/writes", host, json.dumps(batch, separators=(",", ":")).encode(), key=key) for batch in whole]


def main() -> int:
    """Carry out the order on stdin."""
    order: dict[str, Any] = json.load(sys.stdin)
    host, ports = order["host"], order["ports"]
    where, size, key = f"{host}:{ports[0]}", order["batch"], order["key"]
    if size == 1:
        requests = saves(where, workspaces=order["workspaces"], first=order["first"], files=order["files"], key=key)
    else:
        requests = batches(where, workspaces=order["workspaces"], size=size, first=order["first"], key=key)
    gc.disable()
    began, cpu = time.perf_counter(), time.process_time()
    tally = drive(
        host, ports, requests, connections=order["connections"], seconds=order["seconds"], wanted=order["wanted"]
    )
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    ordered = sorted(tally.latencies_us)
    last = len(ordered) - 1
    result = {
        "answers": len(ordered),
        "statuses": dict(tally.statuses),
        "took_s": took_s,
        "cpu_s": cpu_s,
        "p50_ms": ordered[last // 2] / 1000,
        "p99_ms": ordered[int(last * 0.99)] / 1000,
        "worst_ms": ordered[last] / 1000,
        "refused": tally.refused,
    }
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
