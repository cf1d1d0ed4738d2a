"""Waiting for commits on the event loop: many at a time, callers that go away, and a committer that has enough."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from orchestrator.api.commits import Commits
from orchestrator.errors import Conflict
from orchestrator.ports.store import EventStore
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.storage.committer import Committer
from orchestrator.storage.event_store import SqlEventStore
from orchestrator.storage.opening import open_store
from tests.api.conftest import served
from tests.waiting import wait_until


@contextmanager
def standing_still(store: EventStore) -> Iterator[None]:
    """Keep the committer inside a step for as long as the block lasts."""
    goes, stands = threading.Event(), threading.Event()

    def stand(tx: Transaction) -> None:
        stands.set()
        assert goes.wait(30)

    store.submit(Unit(name="stand", workspaces=(), step=stand), lambda outcome: None)
    assert stands.wait(10)
    try:
        yield
    finally:
        goes.set()


def answering(number: int) -> Unit[int]:
    def step(tx: Transaction) -> int:
        if number == 3:
            raise Conflict("the third one")
        return number

    return Unit(name="answer", workspaces=(), step=step)


def test_each_of_many_gets_his_own_answer_with_one_wake_up_of_the_loop(sqlite_url: str) -> None:
    woken: list[object] = []

    async def ask(store: EventStore) -> list[object]:
        loop, commits = asyncio.get_running_loop(), Commits(store)
        wake = loop.call_soon_threadsafe

        def count(*given: Any, **how: Any) -> asyncio.Handle:
            woken.append(given)
            return wake(*given, **how)

        loop.call_soon_threadsafe = count  # type: ignore[method-assign,assignment]  # it is what is counted
        with standing_still(store):
            asked = [asyncio.ensure_future(commits.commit(answering(number))) for number in range(50)]
            await asyncio.sleep(0)  # lets each of them ask
        return await asyncio.gather(*asked, return_exceptions=True)

    with closing(open_store(sqlite_url, shares_commits=True)) as store:
        answers = asyncio.run(ask(store))
    assert [answer for answer in answers if isinstance(answer, int)] == [n for n in range(50) if n != 3]
    assert isinstance(answers[3], Conflict)
    assert 1 <= len(woken) <= 3, "one wake-up for what a commit has answered, not one each"


def test_what_a_caller_who_went_away_asked_for_is_stored(sqlite_url: str) -> None:
    with served(sqlite_url) as api:
        api.put_workspace()
        before = api.stored()
        body = b'{"path": "a.py", "id": "1"}'
        head = b"POST /v1/workspaces/ws/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with standing_still(api.services.store):
            host, port = api.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                store = api.services.store
                assert isinstance(store, SqlEventStore)
                committer = store.committing
                assert isinstance(committer, Committer)
                wait_until(lambda: len(committer._line) == 1, what="it is in line")
        wait_until(lambda: api.stored() == before + 1, what="it is stored")
        assert api.write(path="a.py", id="1")["replayed"] is True
        assert api.write(id="2")["replayed"] is False, "the others go on"


@pytest.mark.parametrize("batch", [False, True])
def test_more_than_may_wait_are_503_to_come_again_and_the_gate_stays_open(sqlite_url: str, batch: bool) -> None:
    with served(sqlite_url) as api:
        api.put_workspace()
        store = api.services.store
        assert isinstance(store, SqlEventStore)
        store.committing.close()
        store.committing = Committer(store, waiting_most=0)
        path = "/v1/writes" if batch else "/v1/workspaces/ws/writes"
        body = [{"workspace": "ws", "path": "a", "id": "1"}] if batch else {"path": "a", "id": "1"}
        refused = api.http.post(path, json=body)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert "nothing was stored, try again" in refused.json()["detail"]
        assert api.http.get("/v1/workspaces").status_code == 200
        store.committing = Committer(store)
        assert api.write(id="1")["replayed"] is False
