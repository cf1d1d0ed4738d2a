"""Clients that write all the while, and keep what they were told: stored, refused, or nothing (outcome unknown)."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2

from tests.system.client import Answer

_PATIENCE_S = 4.0
_TRIES = 3


@dataclass
class Operation:
    """One write or request of one client, under an id that is its own over all its tries."""

    id: str
    workspace: str
    is_write: bool
    tries: int = 0
    answers: list[Answer] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    lost: int = 0
    """Tries without an answer: what became of them is unknown."""

    @property
    def acknowledged(self) -> bool:
        return bool(self.answers)

    @property
    def unknown(self) -> bool:
        """No answer said that it is stored, so it may be or not: a 503 says no more than that, nor does a cut line."""
        return not self.answers


class Writers:
    """Threads that write to some workspaces through one URL; another try of a lost operation has the same id."""

    def __init__(self, url: str, workspaces: Sequence[str], *, seed: int, name: str, every_s: float = 0.03) -> None:
        self._url, self._workspaces, self._every_s = url, list(workspaces), every_s
        self._seed, self._name = seed, name
        self._over = threading.Event()
        self.operations: list[Operation] = []

    @property
    def acknowledged(self) -> int:
        return sum(operation.acknowledged for operation in self.operations)

    @contextmanager
    def at_work(self, threads: int = 2) -> Iterator[Writers]:
        """Write until the block ends, and give every lost operation one more try then."""
        working = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]
        for thread in working:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in working:
                thread.join(60)

    def _work(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        with httpx2.Client(base_url=self._url, timeout=_PATIENCE_S) as http:
            count = 0
            while not self._over.wait(self._every_s * chance.uniform(0.2, 1.8)):
                count += 1
                self._operate(http, f"{self._name}-{number}-{count}", chance)

    def _operate(self, http: httpx2.Client, name: str, chance: random.Random) -> None:
        operation = Operation(name, chance.choice(self._workspaces), is_write=chance.random() > 0.05)
        body = {"path": f"src/f{chance.randrange(12)}.py", "id": name, "source": "chaos"}
        self.operations.append(operation)
        while operation.tries < _TRIES:
            self._try(http, operation, body)
            if operation.acknowledged and chance.random() < 0.95:
                return  # one in twenty is sent again although it was answered
            if chance.random() < 0.3:
                return  # a client that gives up

    @staticmethod
    def _try(http: httpx2.Client, operation: Operation, body: Answer) -> None:
        call, headers = f"/v1/workspaces/{operation.workspace}/restarts", {"Idempotency-Key": operation.id}
        if operation.is_write:
            call = f"/v1/workspaces/{operation.workspace}/writes"
        else:
            body = {"reason": operation.id}
        operation.tries += 1
        try:
            response = http.post(call, json=body, headers=headers)
        except httpx2.TransportError:
            operation.lost += 1
            return
        if response.status_code == 202:
            operation.answers.append(response.json())
        else:
            operation.refused.append(response.status_code)
