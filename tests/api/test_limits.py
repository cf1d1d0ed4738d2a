"""What a key may ask for in a minute: writes to the last one over all processes, reads by each; none is lost by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.ports.store import EventFilter
from tests.api.keyring import Header, Keyring, bearer, keyed
from tests.waiting import wait_until


@pytest.fixture(params=["sqlite_url", "app_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def ring(url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(url, tmp_path) as found:
        found.api.put_workspace()
        yield found


def write(ring: Keyring, header: Header, source_id: str | None = None) -> httpx2.Response:
    body = {"path": "a", **({} if source_id is None else {"source": "s", "id": source_id})}
    return ring.api.http.post("/v1/workspaces/ws/writes", json=body, headers=header)


def written(ring: Keyring) -> int:
    with ring.api.services.store.read() as reader:
        return len(reader.events(EventFilter(types=("FileWritten",), limit=10_000)))


def check_refusal(answer: httpx2.Response, name: str, per_minute: int) -> int:
    """Hold a 429 against the draft on rate limits; return after how many seconds it asks to be tried again."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["type"].endswith(":quota-exceeded")
    wait_s = int(answer.headers["retry-after"])
    assert 1 <= wait_s <= 60
    assert answer.headers["ratelimit-policy"] == f'"{name}";q={per_minute};w=60'
    assert answer.headers["ratelimit"] == f'"{name}";r=0;t={wait_s}'
    assert f"{per_minute} {name} a minute" in answer.json()["detail"]
    return wait_s


def test_writes_beyond_the_limit_are_429_and_are_stored_when_they_come_again(ring: Keyring) -> None:
    header = ring.header("ci", writes_per_minute=60)
    begun_s, accepted = time.monotonic(), 0
    while (answer := write(ring, header, f"w{accepted}")).status_code == 202:
        accepted += 1
    assert 60 <= accepted <= 60 + (time.monotonic() - begun_s) + 1
    assert check_refusal(answer, "writes", 60) == 1
    assert written(ring) == accepted
    replayed = write(ring, header, "w0")
    assert (replayed.status_code, replayed.json()["replayed"]) == (202, True), "what was stored before costs nothing"
    wait_until(lambda: write(ring, header, f"w{accepted}").status_code == 202, what="a write has come back")
    assert write(ring, header, f"w{accepted}").json()["replayed"]
    assert written(ring) == accepted + 1, "once"
    assert write(ring, ring.owner).status_code == 202, "nobody else's limit"


def test_commands_and_batches_are_writes_too(ring: Keyring) -> None:
    header, http = ring.header("ci", "operator", writes_per_minute=3), ring.api.http
    batch = [{"workspace": "ws", "path": f"{number}"} for number in range(2)]
    assert http.post("/v1/writes", json=batch, headers=header).json()["accepted"] == 2
    assert http.post("/v1/workspaces/ws/hold", json={"reason": "r"}, headers=header).status_code == 200
    acts: list[tuple[str, Any]] = [
        ("/v1/writes", batch),
        ("/v1/workspaces/ws/release", {"reason": "r"}),
        ("/v1/workspaces/ws/restarts", {"reason": "r"}),
        ("/v1/workspaces/ws/probes", {"healthy": False}),
    ]
    before = ring.api.stored()
    for path, body in acts:
        check_refusal(http.post(path, json=body, headers=header), "writes", 3)
    body = {"executor": "simulated", "fleet": "other"}
    check_refusal(http.put("/v1/workspaces/ws", json=body, headers=header), "writes", 3)
    check_refusal(http.delete("/v1/workspaces/ws", headers=header), "writes", 3)
    assert ring.api.stored() == before
    assert http.get("/v1/workspaces/ws", headers=header).status_code == 200, "reads have a limit of their own"


def test_writes_are_exact_over_two_processes(ring: Keyring, url: str, tmp_path: Path) -> None:
    header, most = ring.header("ci", writes_per_minute=60), 60
    with keyed(url, tmp_path) as other, ThreadPoolExecutor(8) as pool:
        begun_s = time.monotonic()
        statuses = list(pool.map(lambda number: write((ring, other)[number % 2], header).status_code, range(160)))
        took_s = time.monotonic() - begun_s
    accepted = statuses.count(202)
    assert set(statuses) == {202, 429}
    assert most <= accepted <= most + took_s + 1, (accepted, took_s)
    assert written(ring) == accepted


def test_reads_are_bounded_in_each_process(ring: Keyring, url: str, tmp_path: Path) -> None:
    header, most = ring.header("ci", reads_per_minute=30, writes_per_minute=1), 30
    with keyed(url, tmp_path) as other:
        for each in (ring, other):
            begun_s = time.monotonic()
            answers = [each.api.http.get("/v1/workspaces", headers=header) for _ in range(most + 20)]
            read = sum(answer.status_code == 200 for answer in answers)
            assert most <= read <= most + (time.monotonic() - begun_s) / 2 + 1
            assert check_refusal(answers[-1], "reads", most) <= 2
            check_refusal(each.api.http.get("/v1/whoami", headers=header), "reads", most)
            assert each.api.http.get("/livez", headers=header).status_code == 200
            assert each.api.http.get("/v1/workspaces", headers=each.owner).status_code == 200
    assert write(ring, header).status_code == 202, "writes have a limit of their own"


def test_a_key_and_the_one_that_takes_its_place_share_their_limits(ring: Keyring, url: str, tmp_path: Path) -> None:
    """Over processes too, one of which may not know yet that there are two."""
    made = ring.made("ci", writes_per_minute=1, reads_per_minute=2)
    old = bearer(made["key"])
    with keyed(url, tmp_path) as other:
        assert write(other, old).status_code == 202
        new = bearer(ring.api.http.post("/v1/keys/ci/rotate", headers=ring.owner).json()["key"])
        for each, header in ((ring, new), (other, new), (other, old), (ring, old)):
            check_refusal(write(each, header), "writes", 1)
        assert [ring.api.http.get("/v1/whoami", headers=one).json()["actor"] for one in (old, new)] == ["key:ci"] * 2
        for header in (old, new):
            check_refusal(ring.api.http.get("/v1/whoami", headers=header), "reads", 2)
        assert ring.api.http.delete(f"/v1/keys/{made['id']}", headers=ring.owner).status_code == 200
        check_refusal(write(ring, new), "writes", 1)
    assert written(ring) == 1


def test_a_refusal_for_the_limit_is_recorded(ring: Keyring) -> None:
    header = ring.header("ci", writes_per_minute=1)
    assert [write(ring, header).status_code for _ in range(3)] == [202, 429, 429]
    ring.api.server.app.state.access_record.flush()
    with ring.api.services.store.read() as reader:
        (denied,) = reader.stored_events(EventFilter(types=("AccessDenied",)))
    assert denied.actor == "key:ci"
    assert b'"count":2' in bytes(denied.data)
    assert b'"reason":"rate"' in bytes(denied.data)
