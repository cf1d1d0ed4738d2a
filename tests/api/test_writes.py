"""Writes in, one and many; the same again; what became of them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.api.conftest import Api, served

NDJSON = {"content-type": "application/x-ndjson"}


def ndjson(*lines: Any) -> bytes:
    return b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)


def test_first_write_opens_a_window_and_the_next_is_folded(any_api: Api) -> None:
    first = any_api.write(path="a.py")
    second = any_api.write(path="b.py")

    assert (first["decision"], second["decision"]) == ("opened_window", "folded")
    assert first["action"] == "restart"
    assert first["position"] < second["position"]
    assert first["due_at"] is not None
    assert not first["replayed"]


def test_location_tells_the_fate(api: Api) -> None:
    accepted = api.http.post("/v1/workspaces/ws/writes", json={"path": "a.py"})
    fate = api.get(accepted.headers["location"])

    assert fate["id"] == accepted.json()["id"]
    assert (fate["status"], fate["final"]) == ("pending", False)

    api.restart_all()
    fate = api.get(accepted.headers["location"])

    assert (fate["status"], fate["final"]) == ("covered", True)
    assert fate["restart"].startswith("rst_")
    assert fate["cycle"].startswith("cyc_")


def test_same_source_and_id_is_stored_once(any_api: Api) -> None:
    first = any_api.write(source="watcher", id="1")
    before = any_api.stored()
    again = any_api.write(source="watcher", id="1")

    assert again == first | {"replayed": True}
    assert any_api.stored() == before

    other = any_api.http.post("/v1/workspaces/ws/writes", json={"path": "other.py", "source": "watcher", "id": "1"})

    assert other.status_code == 409
    assert other.json()["type"] == "urn:restart-orchestrator:problem:key-reused"
    assert any_api.stored() == before


SAME_AGAIN: tuple[tuple[str, Any], ...] = (
    ("/v1/workspaces/ws/writes", {"path": "a.py"}),
    ("/v1/writes", [{"workspace": "ws", "path": "a.py"}, {"workspace": "none", "path": "b.py"}]),
    ("/v1/workspaces/ws/restarts", {"reason": "because"}),
    ("/v1/workspaces/ws/probes", {"healthy": False}),
    ("/v1/workspaces/ws/hold", {"reason": "because"}),
    ("/v1/workspaces/ws/release", {"reason": "because"}),
)


def test_same_idempotency_key_gives_the_same_answer(any_api: Api) -> None:
    for path, body in SAME_AGAIN:
        headers = {"Idempotency-Key": path, "content-type": "application/json"}
        first = any_api.http.post(path, json=body, headers=headers)
        before = any_api.stored()
        again = any_api.http.post(path, json=body, headers=headers)
        changed = any_api.http.post(path, content=json.dumps(body) + " ", headers=headers)

        assert first.is_success
        assert first.status_code == again.status_code
        assert without_replayed(first.json()) == without_replayed(again.json())
        assert first.json()["replayed"] == 0
        assert again.json()["replayed"] == 1
        assert changed.status_code == 409
        assert any_api.stored() == before


def without_replayed(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: without_replayed(value) for name, value in answer.items() if name != "replayed"}
    return [without_replayed(item) for item in answer] if isinstance(answer, list) else answer


def test_batch_stores_good_ones_beside_bad_ones(any_api: Api) -> None:
    lines = [
        {"workspace": "ws", "path": "a.py"},
        b"{broken",
        {"workspace": "none", "path": "b.py"},
        {"workspace": "ws", "path": "c.py", "surprise": 1},
        {"workspace": "ws", "path": "d.py", "id": "d"},
        {"workspace": "ws", "path": "d.py", "id": "d"},
        b"\xff",
        {"workspace": "not an id", "path": "e.py"},
    ]
    answer = any_api.http.post("/v1/writes", content=ndjson(*lines), headers=NDJSON)

    assert answer.status_code == 202
    batch = answer.json()
    assert [result["index"] for result in batch["results"]] == [0, 4, 5]
    assert batch["results"][1]["id"] == batch["results"][2]["id"]
    assert [result["replayed"] for result in batch["results"]] == [False, False, True]
    assert (batch["accepted"], batch["replayed"]) == (3, 1)
    names = {each["index"]: each["problem"]["type"].rpartition(":")[2] for each in batch["rejected"]}
    assert names == {1: "bad-request", 2: "not-found", 3: "invalid-input", 6: "bad-request", 7: "invalid-input"}
    assert {each["index"]: each["problem"].get("errors", [{}])[0].get("pointer") for each in batch["rejected"]}[3] == (
        "/surprise"
    )


def test_batch_of_bad_ones_is_a_problem_that_names_each(api: Api) -> None:
    before = api.stored()
    answer = api.http.post("/v1/writes", json=[{"workspace": "none", "path": "a"}, 7])

    assert answer.status_code == 422
    assert [each["index"] for each in answer.json()["rejected"]] == [0, 1]
    assert answer.json()["accepted"] == 0
    assert api.stored() == before


def test_largest_batch_is_taken(api: Api) -> None:
    writes = [{"workspace": "ws", "path": f"f{number}"} for number in range(10_000)]
    answer = api.http.post("/v1/writes", json=writes)

    assert answer.status_code == 202
    assert answer.json()["accepted"] == 10_000


ODD_PATHS = {
    b'{"path": "caf\\udce9.txt"}': "caf%E9.txt",
    b'{"path": "a\\u0000b"}': "a%00b",
    '{"path": "smörgås.txt"}'.encode(): "smörgås.txt",
}


def test_odd_paths_are_stored_escaped(any_api: Api) -> None:
    for body in ODD_PATHS:
        answer = any_api.http.post(
            "/v1/workspaces/ws/writes", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 202
    stored = [event["data"] for event in any_api.get("/v1/events", type="FileWritten")["items"]]

    assert [data["path"] for data in stored] == list(ODD_PATHS.values())
    assert [data.get("path_encoding") for data in stored] == ["percent", "percent", None]


def test_everything_a_write_says_is_kept(api: Api) -> None:
    said = {"op": "renamed", "source": "agent", "id": "7", "digest": "sha256:00", "size": 2**63 - 1}
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    api.http.post(
        "/v1/workspaces/ws/writes",
        json={"path": "a.py", "occurred_at": "2026-11-23T12:00:00+02:00", **said},
        headers={"traceparent": trace},
    )
    event = api.get("/v1/events", type="FileWritten")["items"][0]

    assert event["occurred_at"] == "2026-11-23T10:00:00.000000Z"
    assert (event["source"], event["source_id"]) == ("agent", "7")
    assert {name: event["data"][name] for name in ("op", "digest", "size")} == {
        "op": "renamed",
        "digest": "sha256:00",
        "size": 2**63 - 1,
    }
    with api.services.store.read() as reader:
        recorded = reader.event(event["id"])
    assert recorded is not None
    assert recorded.traceparent == trace


def test_fifty_concurrent_writers_give_one_restart(any_api: Api) -> None:
    together = threading.Barrier(50)

    def write(number: int) -> dict[str, Any]:
        together.wait(20)
        return any_api.write(path=f"f{number}.py", source="crowd", id=str(number))

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(write, range(50)))
    any_api.restart_all()
    restarts = any_api.get("/v1/restarts")["items"]

    assert len({answer["position"] for answer in answers}) == 50
    assert [answer["decision"] for answer in answers].count("opened_window") == 1
    assert [(restart["writes"], restart["files"], restart["state"]) for restart in restarts] == [(50, 50, "succeeded")]


def test_first_write_registers_where_that_is_on(sqlite_url: str) -> None:
    with served(sqlite_url, auto_register="simulated") as api:
        assert api.write("new")["decision"] == "opened_window"
        assert api.get("/v1/workspaces/new")["executor"] == "simulated"


def test_wait_holds_the_answer_until_it_is_final(any_api: Api) -> None:
    write = any_api.write()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(any_api.get, f"/v1/writes/{write['id']}", wait=20)
        any_api.restart_all()
        fate = answer.result(20)

    assert fate["status"] == "covered"


def test_wait_ends_with_its_time(api: Api) -> None:
    write = api.write()
    began = time.monotonic()

    assert api.get(f"/v1/writes/{write['id']}", wait=0.3)["status"] == "pending"
    assert 0.3 <= time.monotonic() - began < 5


def test_many_waits_hold_no_threads(api: Api) -> None:
    write = api.write()
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(api.get, f"/v1/writes/{write['id']}", wait=15) for _ in range(60)]
        began = time.monotonic()
        for _ in range(5):
            api.write()
        took = time.monotonic() - began
        api.restart_all()
        assert {answer.result()["status"] for answer in waiting} == {"covered"}

    assert took < 5


def test_fates_of_several(api: Api) -> None:
    ids = [api.write(path=name)["id"] for name in ("a", "b")]
    answer = api.http.get("/v1/writes", params={"id": [*ids, "evt_none"]}).json()

    assert [fate["id"] for fate in answer["items"]] == ids
    assert answer["missing"] == ["evt_none"]
