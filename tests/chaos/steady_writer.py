"""A client that writes all the while, keeps every answer, and holds them against the log afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2

from tests.chaos.production import ChaosProduction
from tests.system.client import Answer
from tests.system.history import History
from tests.waiting import wait_until


def pids_of(production: ChaosProduction) -> dict[str, int]:
    """What runs now, to show that nothing was restarted."""
    return {name: process.acting_pid for name, process in production.processes.items() if process.alive}


class Answered:
    """What a writer was told: answers of accepted writes, and responses of refused ones."""

    def __init__(self) -> None:
        self.accepted: list[Answer] = []
        self.refused: list[httpx2.Response] = []


@contextmanager
def writing_all_the_while(production: ChaosProduction, workspace: str) -> Iterator[Answered]:
    """Write one after the other in a thread, and keep every answer."""
    answered, over = Answered(), threading.Event()

    def write() -> None:
        number = 0
        while not over.wait(0.01):
            number += 1
            body = {"path": f"f{number}", "id": f"{workspace}-{number}"}
            response = production.client.http.post(f"/v1/workspaces/{workspace}/writes", json=body)
            if response.status_code == 202:
                answered.accepted.append(response.json())
            else:
                answered.refused.append(response)

    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(write)
        try:
            yield answered
        finally:
            over.set()
            writing.result(30)


def check_accepted(production: ChaosProduction, workspace: str, answered: Answered) -> History:
    """Trouble was a 503 that says when to come back; what was accepted is stored, and covered."""
    wait_until(lambda: not production.state(workspace).pending, what="everything is covered", timeout_s=30)
    history = production.settled(workspace, restarts=len(production.history(workspace).queued))
    assert {response.status_code for response in answered.refused} == {503}
    assert all("retry-after" in response.headers for response in answered.refused)
    assert {answer["id"] for answer in answered.accepted} <= {write.id for write in history.writes}
    return history
