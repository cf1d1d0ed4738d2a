"""A key's limits over HTTP: 429 that says when to come again, and no write is lost by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.api.keyring import Keyring, keyed


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.put_workspace()
        yield found


def refused(answer: httpx2.Response, name: str, most: int) -> None:
    """Assert that an answer is the refusal of what is beyond a key's minute."""
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (429, "quota-exceeded")
    wait_s = int(answer.headers["Retry-After"])
    assert 1 <= wait_s <= 60
    assert answer.headers["RateLimit-Policy"] == f'"{name}";q={most};w=60'
    assert answer.headers["RateLimit"] == f'"{name}";r=0;t={wait_s}'


def test_reads_beyond_a_minutes_worth_are_refused_and_writes_are_not(ring: Keyring) -> None:
    key = ring.header("reads", "writer", reads_per_minute=5)
    http = ring.api.http
    answers = [http.get("/v1/workspaces", headers=key) for _ in range(6)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    refused(answers[5], "reads", 5)
    assert http.post("/v1/workspaces/ws/writes", json={"path": "a"}, headers=key).status_code == 202
    other = ring.header("other", "writer")
    assert http.get("/v1/workspaces", headers=other).status_code == 200


def test_writes_beyond_it_are_refused_whole_and_the_same_again_is_the_first(ring: Keyring) -> None:
    key = ring.header("writes", "writer", writes_per_minute=5)
    http, before = ring.api.http, ring.api.stored()
    batch = [{"workspace": "ws", "path": f"{number}", "id": f"{number}"} for number in range(5)]
    assert http.post("/v1/writes", json=batch, headers=key).json()["accepted"] == 5
    for body in ([{"workspace": "ws", "path": "late", "id": "late"}], [*batch[:1], {"workspace": "ws", "path": "new"}]):
        refused(http.post("/v1/writes", json=body, headers=key), "writes", 5)
    assert ring.api.stored() == before + 5
    again = http.post("/v1/writes", json=batch, headers=key)
    assert (again.status_code, [each["replayed"] for each in again.json()["results"]]) == (202, [True] * 5)
    assert http.get("/v1/workspaces", headers=key).status_code == 200
