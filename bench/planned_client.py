"""Writes over HTTP by a plan: as fast as they are answered, or each at its instant; and when each was acknowledged.

Run as ``python -m bench.planned_client URLS PLAN LOG CONNECTIONS BATCH``; with several URLs, commas between them, the
connections are spread over all. The plan is JSON, ``[[seconds, workspace],
...]``; a write waits for a free connection. The log has ``workspace sent acknowledged`` (monotonic nanoseconds) a line.
With ``BATCH`` over 1 so many neighbours of the plan go out in one request.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

from bench.generator import Connection, post

_SILENT_S = 60.0


class Client:
    """Kept connections to one server or several; the free ones wait in a queue."""

    def __init__(self, urls: list[str], connections: int) -> None:
        servers = [(where.hostname or "", where.port or 80) for where in map(urlsplit, urls)]
        self.where = f"{servers[0][0]}:{servers[0][1]}"
        self._poller = select.epoll()
        opened = [Connection(*servers[number % len(servers)]) for number in range(connections)]
        self._by_number = {connection.socket.fileno(): connection for connection in opened}
        for number in self._by_number:
            self._poller.register(number, select.EPOLLIN)
        self._free = deque(self._by_number)
        self._under_way: dict[int, tuple[list[str], int]] = {}
        self.log: list[str] = []

    @property
    def idle(self) -> bool:
        """True if nothing is under way."""
        return not self._under_way

    def send(self, names: list[str]) -> None:
        """Send one write, or several in one request, over the next free connection; wait for one if need be."""
        while not self._free:
            self.receive(_SILENT_S)
        number = self._free.popleft()
        self._under_way[number] = (names, time.monotonic_ns())
        self._by_number[number].ask(self._request(names))

    def receive(self, within_s: float) -> None:
        """Take what was answered, waiting so long for it at most. Raises ``RuntimeError`` for a refusal."""
        for number, _ in self._poller.poll(max(0.0, within_s)):
            answer = self._by_number[number].answer()
            if answer is None:
                continue
            if not answer.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(answer[:600].decode(errors="replace"))
            names, sent = self._under_way.pop(number)
            acknowledged = time.monotonic_ns()
            self.log += [f"{name} {sent} {acknowledged}\n" for name in names]
            self._free.append(number)

    def _request(self, names: list[str]) -> bytes:
        if len(names) == 1:
            return post(f"/v1/workspaces/{names[0]}/writes", self.where, b'{"path":"src/app/view.py"}')
        batch = [{"workspace": name, "path": "src/app/view.py"} for name in names]
        return post("/v1/writes", self.where, json.dumps(batch, separators=(",", ":")).encode())


def main(urls: list[str], plan: Path, log: Path, connections: int, batch: int) -> int:
    """Carry out the plan."""
    client = Client(urls, connections)
    planned: list[tuple[float, str]] = json.loads(plan.read_text())
    began = time.monotonic()
    for start in range(0, len(planned), batch):
        at_s = planned[start][0]
        while (wait_s := began + at_s - time.monotonic()) > 0:
            client.receive(wait_s)
        client.send([name for _, name in planned[start : start + batch]])
    while not client.idle:
        client.receive(_SILENT_S)
    log.write_text("".join(client.log))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split(","), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
