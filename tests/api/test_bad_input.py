"""Bad input: a clear problem, nothing stored, nothing lost."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx2
import pytest

from orchestrator.storage.migrate import upgrade
from tests.api.conftest import Api, served

WRITES = "/v1/workspaces/ws/writes"
DEFAULT = "/v1/policies/default"
STREAM = "/v1/events/stream"
BATCH = "/v1/writes"
WORKSPACE = "/v1/workspaces/ws"
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
WHOLE = "in the whole"


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One API for all cases: none of them may leave anything behind."""
    url = f"sqlite:///{tmp_path_factory.mktemp('bad-input') / 'orchestrator.db'}"
    upgrade(url)
    with served(url) as found:
        found.put_workspace()
        found.write(id="taken")
        yield found


def body(**fields: Any) -> dict[str, Any]:
    return {"json": fields}


def raw(content: bytes, headers: dict[str, str] = JSON) -> dict[str, Any]:
    return {"content": content, "headers": headers}


def chunked(count: int) -> dict[str, Any]:
    return {"content": (b"a" * 65536 for _ in range(count)), "headers": JSON}


def typed(content_type: str) -> dict[str, Any]:
    return raw(b"{}", {"content-type": content_type})


def sim(**fields: Any) -> dict[str, Any]:
    return {"json": {"executor": "simulated", **fields}}


def headed(headers: dict[str, str], **fields: Any) -> dict[str, Any]:
    return {"json": fields, "headers": headers}


# name: (method, path, what is sent, status, what the problem points at)
CASES: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "workspace id out of its alphabet": ("POST", "/v1/workspaces/a b/writes", body(path="a"), 422, "workspace"),
    "workspace id too long": ("POST", f"/v1/workspaces/{'a' * 129}/writes", body(path="a"), 422, "workspace"),
    "workspace id with a newline": ("POST", "/v1/workspaces/ws%0A/writes", body(path="a"), 422, "workspace"),
    "workspace id that is not UTF-8": ("POST", "/v1/workspaces/%ff/writes", body(path="a"), 422, "workspace"),
    "unknown workspace": ("POST", "/v1/workspaces/none/writes", body(path="a"), 404, WHOLE),
    "no path": ("POST", WRITES, body(), 422, "/path"),
    "empty path": ("POST", WRITES, body(path=""), 422, "/path"),
    "path too long": ("POST", WRITES, body(path="a" * 4097), 422, "/path"),
    "path too long once escaped": ("POST", WRITES, raw(b'{"path": "' + b"\\u0000" * 1366 + b'"}'), 422, "/path"),
    "path of a wrong type": ("POST", WRITES, body(path=7), 422, "/path"),
    "unknown field": ("POST", WRITES, body(path="a", surprise=1), 422, "/surprise"),
    "unknown field with half a surrogate": ("POST", WRITES, raw(b'{"path": "a", "\\udce9": 1}'), 422, WHOLE),
    "unknown operation": ("POST", WRITES, body(path="a", op="eaten"), 422, "/op"),
    "operation with half a surrogate": ("POST", WRITES, raw(b'{"path": "a", "op": "\\udce9"}'), 422, WHOLE),
    "negative size": ("POST", WRITES, body(path="a", size=-1), 422, "/size"),
    "absurd size": ("POST", WRITES, body(path="a", size=2**63), 422, "/size"),
    "size that is no number": ("POST", WRITES, body(path="a", size=True), 422, "/size"),
    "fractional size": ("POST", WRITES, body(path="a", size=1.5), 422, "/size"),
    "instant without offset": ("POST", WRITES, body(path="a", occurred_at="2026-11-23T12:00:00"), 422, "/occurred_at"),
    "instant out of range": (
        "POST",
        WRITES,
        body(path="a", occurred_at="0001-01-01T00:00:00+23:00"),
        422,
        "/occurred_at",
    ),
    "no instant": ("POST", WRITES, body(path="a", occurred_at="yesterday"), 422, "/occurred_at"),
    "empty source id": ("POST", WRITES, body(path="a", id=""), 422, "/id"),
    "long source id": ("POST", WRITES, body(path="a", id="i" * 257), 422, "/id"),
    "source id with NUL": ("POST", WRITES, body(path="a", id="a\0"), 422, "/id"),
    "source with half a surrogate": ("POST", WRITES, raw(b'{"path": "a", "source": "\\ud800"}'), 422, "/source"),
    "long digest": ("POST", WRITES, body(path="a", digest="d" * 257), 422, "/digest"),
    "source id of another write": ("POST", WRITES, body(path="other", id="taken"), 409, WHOLE),
    "not an object": ("POST", WRITES, raw(b"[]"), 422, WHOLE),
    "empty body": ("POST", WRITES, raw(b""), 400, WHOLE),
    "broken JSON": ("POST", WRITES, raw(b'{"path": "a"'), 400, WHOLE),
    "two JSON texts": ("POST", WRITES, raw(b'{"path": "a"} {}'), 400, WHOLE),
    "NaN": ("POST", WRITES, raw(b'{"path": "\\udce9", "size": NaN}'), 400, WHOLE),
    "nested too deeply": ("POST", WRITES, raw(b"[" * 200_000), 400, WHOLE),
    "nested too deeply beside a surrogate": ("POST", WRITES, raw(b'["\\udce9",' + b"[" * 200_000), 400, WHOLE),
    "not UTF-8": ("POST", WRITES, raw(b'{"path": "\xff"}'), 400, WHOLE),
    "UTF-16": ("POST", WRITES, raw('{"path": "a"}'.encode("utf-16")), 400, WHOLE),
    "body over 1 MiB": ("POST", WRITES, raw(b'{"path": "' + b"a" * 2**20 + b'"}'), 413, WHOLE),
    "chunked body over 1 MiB": (
        "POST",
        WRITES,
        chunked(64),
        413,
        WHOLE,
    ),
    "form": ("POST", WRITES, {"data": {"path": "a"}}, 415, "Content-Type"),
    "no content type": ("POST", WRITES, {"content": b'{"path": "a"}'}, 415, "Content-Type"),
    "another charset": (
        "POST",
        WRITES,
        typed("application/json; charset=latin-1"),
        415,
        "Content-Type",
    ),
    "gzip": ("POST", WRITES, raw(b"{}", {**JSON, "content-encoding": "gzip"}), 415, "Content-Encoding"),
    "NDJSON for one write": ("POST", WRITES, raw(b"{}", NDJSON), 415, "Content-Type"),
    "CloudEvents": (
        "POST",
        "/v1/writes",
        typed("application/cloudevents+json"),
        415,
        "Content-Type",
    ),
    "batch that is no array": ("POST", BATCH, body(workspace="ws", path="a"), 422, WHOLE),
    "empty batch": ("POST", BATCH, raw(b"\n\n", NDJSON), 422, WHOLE),
    "batch of strings": ("POST", BATCH, {"json": ["{}"]}, 422, WHOLE),
    "batch over 10,000": ("POST", BATCH, raw(b"{}\n" * 10_001, NDJSON), 413, WHOLE),
    "empty idempotency key": (
        "POST",
        WRITES,
        headed({"Idempotency-Key": ""}, path="a"),
        400,
        "Idempotency-Key",
    ),
    "long idempotency key": (
        "POST",
        WRITES,
        headed({"Idempotency-Key": "k" * 256}, path="a"),
        400,
        "Idempotency-Key",
    ),
    "unknown executor": ("PUT", WORKSPACE, body(executor="magic"), 422, "/executor"),
    "process outside of up": ("PUT", WORKSPACE, body(executor="process", target={"argv": ["x"]}), 422, "/executor"),
    "no executor": ("PUT", WORKSPACE, body(), 422, "/executor"),
    "target refused": ("PUT", WORKSPACE, sim(target={"delay": -1}), 422, "/target/delay"),
    "unknown target field": ("PUT", WORKSPACE, sim(target={"spin": 1}), 422, "/target/spin"),
    "fleet out of its alphabet": ("PUT", WORKSPACE, sim(fleet="a b"), 422, "/fleet"),
    "label of a wrong type": ("PUT", WORKSPACE, sim(labels={"a": 1}), 422, "/labels/a"),
    "label too long": ("PUT", WORKSPACE, sim(labels={"a": "b" * 257}), 422, "/labels/a"),
    "label with NUL": ("PUT", WORKSPACE, sim(labels={"a": "\0"}), 422, "/labels/a"),
    "too many labels": (
        "PUT",
        WORKSPACE,
        sim(labels={str(n): "" for n in range(65)}),
        422,
        "/labels",
    ),
    "negative duration": ("PUT", WORKSPACE, sim(policy={"quiet": "-1s"}), 422, "/policy/quiet"),
    "absurd duration": ("PUT", WORKSPACE, sim(policy={"quiet": "9999d"}), 422, "/policy/quiet"),
    "no duration": ("PUT", WORKSPACE, sim(policy={"quiet": "soon"}), 422, "/policy/quiet"),
    "zero where it makes no sense": (
        "PUT",
        WORKSPACE,
        sim(policy={"lease": 0}),
        422,
        "/policy/lease",
    ),
    "a pool that is no name": ("PUT", WORKSPACE, sim(target={"pool": "host 2"}), 422, "/target/pool"),
    "a pool that is no text": ("PUT", WORKSPACE, sim(target={"pool": 2}), 422, "/target/pool"),
    "a lease that no worker could keep": ("PUT", WORKSPACE, sim(policy={"lease": "2999ms"}), 422, "/policy/lease"),
    "such a lease for all": ("PUT", "/v1/policies/default", {"json": {"lease": "1ms"}}, 422, "/lease"),
    "zero attempts": (
        "PUT",
        WORKSPACE,
        sim(policy={"max_attempts": 0}),
        422,
        "/policy/max_attempts",
    ),
    "unknown policy field": (
        "PUT",
        WORKSPACE,
        sim(policy={"quite": "1s"}),
        422,
        "/policy/quite",
    ),
    "broken rule": (
        *("PUT", WORKSPACE, sim(policy={"rules": [{"match": "a", "action": "eat"}]}), 422),
        "/policy/rules/0/action",
    ),
    "absurd default policy": ("PUT", DEFAULT, body(max_wait="0s"), 422, "/max_wait"),
    "policy that is no object": ("PUT", DEFAULT, {"json": []}, 422, WHOLE),
    "fleet of a policy": ("PUT", "/v1/policies/fleets/a%20b", body(quiet="1s"), 422, "fleet"),
    "If-Match that is no tag": (
        "PUT",
        DEFAULT,
        headed({"If-Match": "7"}),
        400,
        "If-Match",
    ),
    "If-Match of another version": (
        "PUT",
        DEFAULT,
        headed({"If-Match": '"99"'}),
        412,
        WHOLE,
    ),
    "no reason": ("POST", f"{WORKSPACE}/restarts", body(), 422, "/reason"),
    "blank reason": ("POST", f"{WORKSPACE}/restarts", body(reason=" "), 422, "/reason"),
    "long reason": ("POST", f"{WORKSPACE}/hold", body(reason="r" * 1001), 422, "/reason"),
    "reason with NUL": ("POST", f"{WORKSPACE}/restarts", body(reason="a\0"), 422, "/reason"),
    "target with half a surrogate": (
        *("PUT", WORKSPACE, raw(b'{"executor": "simulated", "target": {"ledger": "\\udce9"}}'), 422, "/target/ledger"),
    ),
    "unknown trigger": ("POST", f"{WORKSPACE}/restarts", body(reason="r", trigger="probe"), 422, "/trigger"),
    "healthy of a wrong type": ("POST", f"{WORKSPACE}/probes", body(healthy="yes"), 422, "/healthy"),
    "hold into the past": ("POST", f"{WORKSPACE}/hold", body(reason="r", until="2020-01-01T00:00:00Z"), 422, "/until"),
    "hold until never": ("POST", f"{WORKSPACE}/hold", body(reason="r", until="never"), 422, "/until"),
    "hold of an unknown workspace": ("POST", "/v1/workspaces/none/hold", body(reason="r"), 404, WHOLE),
    "removal of an unknown workspace": ("DELETE", "/v1/workspaces/none", {}, 404, WHOLE),
    "cancel of an unknown restart": ("POST", "/v1/restarts/rst_none/cancel", body(reason="r"), 404, WHOLE),
    "unknown restart": ("GET", "/v1/restarts/rst_none", {}, 404, WHOLE),
    "unknown write": ("GET", "/v1/writes/evt_none", {}, 404, WHOLE),
    "workspace that never was": ("GET", "/v1/workspaces/none", {}, 404, WHOLE),
    "wait too long": ("GET", "/v1/writes/evt_none?wait=61", {}, 422, "wait"),
    "wait that is no number": ("GET", "/v1/writes/evt_none?wait=nan", {}, 422, "wait"),
    "no ids": ("GET", "/v1/writes", {}, 422, "id"),
    "over 100 ids": ("GET", "/v1/writes?" + "&".join(f"id={n}" for n in range(101)), {}, 422, "id"),
    "cursor that is none": ("GET", "/v1/restarts?cursor=!!!", {}, 422, "cursor"),
    "cursor cut": ("GET", "/v1/restarts?cursor=AAAA", {}, 422, "cursor"),
    "limit zero": ("GET", "/v1/restarts?limit=0", {}, 422, "limit"),
    "limit too high": ("GET", "/v1/events?limit=1001", {}, 422, "limit"),
    "unknown parameter": ("GET", "/v1/restarts?worksapce=ws", {}, 422, "worksapce"),
    "unknown state": ("GET", "/v1/workspaces?state=asleep", {}, 422, "state"),
    "label without a value": ("GET", "/v1/workspaces?label=a", {}, 422, "label"),
    "since that is no instant": ("GET", "/v1/restarts?since=noon", {}, 422, "since"),
    "negative position": ("GET", "/v1/events?after=-1", {}, 422, "after"),
    "absurd position": ("GET", f"/v1/events?after={2**63}", {}, 422, "after"),
    "unknown type": ("GET", "/v1/events?type=FileEaten", {}, 422, "type"),
    "Last-Event-ID that is none": (
        "GET",
        "/v1/events/stream",
        {"headers": {"Last-Event-ID": "x"}},
        400,
        "Last-Event-ID",
    ),
    "Last-Event-ID from another log": (
        *("GET", STREAM, {"headers": {"Last-Event-ID": "9999999"}}, 400, "Last-Event-ID"),
    ),
    "unknown address": ("GET", "/v2", {}, 404, WHOLE),
    "slash at the end": ("GET", "/v1/workspaces/", {}, 404, WHOLE),
    "method that is not there": ("PATCH", WORKSPACE, {}, 405, WHOLE),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_a_clear_problem_and_nothing_is_stored(refusing: Api, name: str) -> None:
    method, path, sent, status, where = CASES[name]
    before = refusing.stored()
    answer = refusing.http.request(method, path, **sent)

    assert answer.status_code == status, answer.text
    problem = answer.json()
    places = [
        error.get("pointer") or error.get("parameter") or error.get("header") for error in problem.get("errors", [])
    ]
    assert where in (places or [None]) or (where == WHOLE and not any(places)), problem
    assert len(problem["detail"]) > 10
    assert "Traceback" not in answer.text
    assert refusing.stored() == before


def test_service_still_works_after_all_that(refusing: Api) -> None:
    assert refusing.write()["position"] > 0


def test_cursor_belongs_to_its_query(api: Api) -> None:
    for number in range(3):
        api.put_workspace(f"w{number}")
    cursor = api.get("/v1/workspaces", limit=1)["next_cursor"]

    changed = api.http.get("/v1/workspaces", params={"limit": 1, "cursor": cursor, "fleet": "other"})
    swapped = cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")
    tampered = api.http.get("/v1/workspaces", params={"limit": 1, "cursor": swapped})
    elsewhere = api.http.get("/v1/restarts", params={"limit": 1, "cursor": cursor})

    assert [answer.status_code for answer in (changed, tampered, elsewhere)] == [422, 422, 422]


def test_allow_names_the_methods(api: Api) -> None:
    """All of them (RFC 9110, 10.2.1), though each method is a route of its own."""
    policy, workspace = api.http.patch(DEFAULT), api.http.patch(WORKSPACE)

    assert [answer.status_code for answer in (policy, workspace)] == [405, 405]
    assert policy.headers["allow"] == "GET, PUT"
    assert workspace.headers["allow"] == "DELETE, GET, PUT"


def test_request_id_of_the_caller_is_kept_if_it_is_good(api: Api) -> None:
    assert api.http.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert api.http.get("/livez", headers={"X-Request-Id": "a b"}).headers["x-request-id"].startswith("req_")


def test_web_page_of_another_name_is_refused(sqlite_url: str) -> None:
    """DNS rebinding: a page's own name that leads to 127.0.0.1. Its requests carry that name."""
    with served(sqlite_url) as api:
        for host in ("evil.example", "evil.example:8321", "127.0.0.1.evil.example", "[", ""):
            assert api.http.get("/v1/workspaces", headers={"Host": host}).status_code == 421
        for host in ("localhost", "localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8321"):
            assert api.http.get("/v1/workspaces", headers={"Host": host}).status_code == 200
        for probe in ("/livez", "/readyz"):
            assert api.http.get(probe, headers={"Host": "evil.example"}).status_code in (200, 503)
    with served(sqlite_url, allow_unauthenticated=True, allowed_hosts="restarts.example,*.lan:80,[::1]") as api:
        for host in ("restarts.example", "Restarts.Example:1", "a.lan:80", "[::1]:8321"):
            assert api.http.get("/v1/workspaces", headers={"Host": host}).status_code == 200
        for host in (
            "localhost",
            "a.restarts.example",
            "lan:80",
            ".lan:80",
            "a.lan",
            "a.lan:81",
            "x@a.lan:80",
            "a.lan:80/",
        ):
            assert api.http.get("/v1/workspaces", headers={"Host": host}).status_code == 421


def test_caller_that_hangs_up_amid_its_body_stores_nothing(api: Api) -> None:
    before = api.stored()
    address = urlparse(api.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST {WRITES} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"path":')

    assert httpx2.get(f"{api.url}/livez").status_code == 200
    assert api.stored() == before


def test_fault_of_the_server_is_a_problem_too(api: Api, tmp_path: Path) -> None:
    """Something that nobody foresaw: the answer names the request, and no traceback."""
    key = {"Idempotency-Key": "once"}
    api.http.post(WRITES, headers=key, json={"path": "a"})
    edit(tmp_path, "UPDATE idempotency_keys SET answer = '{'")
    answer = api.http.post(WRITES, headers=key, json={"path": "a"})

    assert answer.status_code == 500
    assert answer.json()["request_id"] in answer.json()["detail"]
    assert "Traceback" not in answer.text


def test_damaged_row_is_named_and_the_others_are_served(api: Api, tmp_path: Path) -> None:
    api.put_workspace("other")
    edit(tmp_path, "UPDATE workspaces SET folded_state = '{}' WHERE id = 'ws'")
    for answer in (api.http.get(WORKSPACE), api.http.post(WRITES, json={"path": "a"})):
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "unreadable")
        assert answer.json()["detail"].startswith("the row 'ws' of workspaces cannot be read by this version")
    written = api.write("other")
    api.restart_all()
    assert api.get(f"/v1/writes/{written['id']}")["status"] == "covered"


def edit(folder: Path, words: str) -> None:
    with closing(sqlite3.connect(folder / "orchestrator.db")) as connection:
        assert connection.execute(words).rowcount == 1
        connection.commit()
