"""What may happen to a product that is written to as fast as it answers: all at once, each by somebody of his own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil

from bench.http_load import Answered, Load, put_load
from tests.system.client import Client
from tests.system.deployment import Deployment

_RULES = [{"match": [f"dir{number}/**/*.x{number}", f"*.y{number}"], "action": "record"} for number in range(500)]
_BATCH = 3_000
_CONNECTIONS = 32
_WORKSPACES = 200
_HELD = 30
_HALF_SENT, _IDLE = 20, 200
_POISON = (
    b"[" * 100_000,
    b'{"path": "a", "unknown": 1}',
    b'{"path": ""}',
    b'{"path": "\xff"}',
    b'{"path": "a", "size": -1}',
    b'{"path": "' + b"x" * 5_000 + b'"}',
)


_JSON = {"content-type": "application/json"}


@dataclass
class Onlooker:
    """Somebody who writes to a workspace of his own now and then, and sees how long that takes."""

    url: str
    took_s: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def write(self, times: int, every_s: float = 0.02) -> list[float]:
        """Write so often; return how long each took, the shortest first."""
        with httpx2.Client(base_url=self.url, timeout=20) as http:
            for _ in range(times):
                begun = monotonic()
                answer = http.post("/v1/workspaces/onlooker/writes", json={"path": "a"})
                self.took_s.append(monotonic() - begun)
                if answer.status_code != 202:
                    self.refused.append(f"{answer.status_code} {answer.text}")
                threading.Event().wait(every_s)
        return sorted(self.took_s)


@dataclass
class Busy:
    """What was done meanwhile. ``refused`` has what was not answered well."""

    batches: int = 0
    changes: int = 0
    held: int = 0
    poisoned: int = 0
    """Bad requests, each refused with 4xx."""
    refused: list[str] = field(default_factory=list)
    answered: Answered | None = None


def prepare(client: Client) -> None:
    """Register who is written to in batches, under many path rules."""
    client.register("ruled", {"executor": "simulated", "policy": {"rules": _RULES}})


@contextmanager
def kept_busy(deployment: Deployment, seconds: float) -> Iterator[Busy]:
    """Keep a product busy for some seconds, and wait for the end of that."""
    busy, over = Busy(), threading.Event()
    url = deployment.url
    works: list[Callable[[httpx2.Client], Any]] = [
        lambda http: _write_batches(http, busy, over),
        lambda http: _change_policies(http, busy, over),
        lambda http: _send_poison(http, busy, over),
        lambda http: _keep_connections(url, over),
        *[lambda http: _hold_answers(http, busy, over)] * _HELD,
    ]
    threads = [threading.Thread(target=_work, args=(url, work, busy)) for work in works]
    threads.append(threading.Thread(target=_load, args=(url, seconds, busy, over)))
    for thread in threads:
        thread.start()
    try:
        yield busy
    finally:
        for thread in threads:
            thread.join(60)


def processor_share(deployment: Deployment, seconds: float) -> float:
    """Return how much of one processor all processes of a product take, over some seconds."""
    whole = [psutil.Process(process.pid) for process in deployment.processes.values() if process.alive]
    whole += [child for process in whole for child in process.children(recursive=True)]

    def used_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in whole if process.is_running())

    before, begun = used_s(), monotonic()
    threading.Event().wait(seconds)
    return (used_s() - before) / (monotonic() - begun)


def _work(url: str, work: Callable[[httpx2.Client], Any], busy: Busy) -> None:
    with httpx2.Client(base_url=url, timeout=30) as http:
        try:
            work(http)
        except httpx2.HTTPError as error:
            busy.refused.append(repr(error))


def _load(url: str, seconds: float, busy: Busy, over: threading.Event) -> None:
    load = Load(connections=_CONNECTIONS, workspaces=_WORKSPACES, seconds=seconds)
    try:
        busy.answered = put_load(url, load, watched=())
    finally:
        over.set()


def _write_batches(http: httpx2.Client, busy: Busy, over: threading.Event) -> None:
    while not over.wait(0.5):
        writes = [{"workspace": "ruled", "path": f"src/m{number % 97}/f{number}.py"} for number in range(_BATCH)]
        _expect(http.post("/v1/writes", json=writes), busy)
        busy.batches += 1


def _change_policies(http: httpx2.Client, busy: Busy, over: threading.Event) -> None:
    while not over.wait(0.5):
        busy.changes += 1
        _expect(http.put("/v1/policies/default", json={"settle": f"{busy.changes}s"}), busy)


def _hold_answers(http: httpx2.Client, busy: Busy, over: threading.Event) -> None:
    write = http.post("/v1/workspaces/held/writes", json={"path": "a"}).json()
    while not over.is_set():
        _expect(http.get(f"/v1/writes/{write['id']}", params={"wait": "2"}), busy)
        busy.held += 1


def _send_poison(http: httpx2.Client, busy: Busy, over: threading.Event) -> None:
    """Alone, and in a batch whose other writes are good: those are stored."""
    while not over.wait(0.05):
        body = _POISON[busy.poisoned % len(_POISON)]
        answer = http.post("/v1/workspaces/poisoned/writes", content=body, headers=_JSON)
        if not 400 <= answer.status_code < 500:
            busy.refused.append(f"a bad body: {answer.status_code} {answer.text[:300]}")
        busy.poisoned += 1
        mixed = [{"workspace": "poisoned", "path": path} for path in ("a", "", "b")]
        found = http.post("/v1/writes", json=mixed)
        _expect(found, busy)
        if found.status_code == 202 and found.json()["accepted"] != 2:
            busy.refused.append(f"a bad write among good ones: {found.text[:300]}")


def _keep_connections(url: str, over: threading.Event) -> None:
    """Hold connections that say nothing, and some that have sent half of a request."""
    where = urlsplit(url)
    half = (
        b"POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n["
    )
    with ExitStack() as stack:
        for number in range(_HALF_SENT + _IDLE):
            connected = socket.create_connection((where.hostname or "", where.port or 0), timeout=10)
            stack.enter_context(connected)
            if number < _HALF_SENT:
                connected.sendall(half)
        over.wait(60)


def _expect(answer: httpx2.Response, busy: Busy) -> None:
    if answer.status_code not in (200, 202):
        busy.refused.append(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")
