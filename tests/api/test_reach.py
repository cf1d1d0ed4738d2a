"""Keys for some fleets or workspaces: every channel shows and does what is theirs, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.api.keyring import Header, Keyring, keyed

HOLDS = ("read", "writes", "restarts", "holds", "cancel", "register", "probes", "export", "policies")
SECRET = "of-somebody-else"


@pytest.fixture(params=["sqlite_url", "app_url"])
def ring(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keyring]:
    """Workspaces ``mine`` of fleet ``web`` and ``theirs`` of ``db``, each with a restart and a write after it."""
    with keyed(request.getfixturevalue(request.param), tmp_path) as found:
        for name, fleet in (("mine", "web"), ("theirs", "db")):
            found.api.put_workspace(name, fleet=fleet)
            found.api.write(name, path=SECRET if name == "theirs" else "a")
        found.api.restart_all()
        yield found


def key_for(ring: Keyring, bound: str, name: str = "part") -> Header:
    return ring.header(name, "operator", *[f"{scope}@{bound}" for scope in HOLDS])


def ids(ring: Keyring, workspace: str) -> tuple[str, str]:
    """Return a write and a restart of a workspace."""
    write = ring.api.get("/v1/events", workspace=workspace, type="FileWritten")["items"][0]["id"]
    return write, ring.api.get("/v1/restarts", workspace=workspace)["items"][0]["id"]


BOUNDS = pytest.mark.parametrize("bound", ["fleet=web", "fleet=w*", "workspace=mine", "workspace=m?ne"])


@BOUNDS
def test_reads_of_what_is_not_theirs_are_404_or_leave_it_out(ring: Keyring, bound: str) -> None:
    header, (write, restart), (my_write, my_restart) = key_for(ring, bound), ids(ring, "theirs"), ids(ring, "mine")
    moment = ring.api.get("/v1/events", workspace="mine")["items"][-1]["recorded_at"]
    part = bound.replace("w*", "web").replace("m?ne", "mine")

    def ask(path: str, **query: Any) -> tuple[int, str]:
        answer = ring.api.http.get(path, params=query, headers=header)
        return answer.status_code, answer.text

    foreign = [
        ("/v1/workspaces/theirs", {}),
        ("/v1/workspaces/theirs", {"at": moment}),
        (f"/v1/restarts/{restart}", {}),
        (f"/v1/restarts/{restart}/writes", {}),
        (f"/v1/writes/{write}", {}),
        (f"/v1/writes/{write}", {"wait": 5}),
        ("/v1/events", {"workspace": "theirs"}),
        ("/v1/events/stream", {"workspace": "theirs", "after": 0}),
        *(
            (f"/v1/audit/{of}", {"workspace": "theirs"})
            for of in ("summary", "storms", "hot-files", "failures", "export")
        ),
    ]
    for path, query in foreign:
        named = {**query, **({"workspace": "nowhere"} if "workspace" in query else {})}
        status, text = ask(path, **query)
        absent = path.replace("theirs", "nowhere").replace(restart, "rst_no").replace(write, "evt_no")
        assert status == 404, (path, query, text)
        assert SECRET not in text
        assert ask(absent, **named)[0] == 404, "as what does not exist"
    mine = [
        ("/v1/workspaces/mine", {}),
        ("/v1/workspaces/mine", {"at": moment}),
        (f"/v1/restarts/{my_restart}", {}),
        (f"/v1/restarts/{my_restart}/writes", {}),
        (f"/v1/writes/{my_write}", {"wait": 1}),
        ("/v1/events", {"workspace": "mine"}),
        *(
            (f"/v1/audit/{of}", dict([part.split("=")]))
            for of in ("summary", "storms", "hot-files", "failures", "export")
        ),
        ("/v1/audit/export", {"of": "restarts", **dict([part.split("=")])}),
    ]
    for path, query in mine:
        status, text = ask(path, **query)
        assert (status, SECRET in text, "theirs" in text) == (200, False, False), (path, query, text)
    for path, query in (("/v1/workspaces", {}), ("/v1/workspaces", {"at": moment}), ("/v1/restarts", {})):
        found = json.loads(ask(path, **query)[1])["items"]
        assert {one.get("workspace", one["id"]) for one in found} == {"mine"}, (path, query)
    assert json.loads(ask("/v1/writes", id=[write, my_write])[1])["missing"] == [write]
    for path in ("/v1/events", "/v1/events/stream", "/v1/audit/summary", "/v1/audit/export", "/v1/audit/hot-files"):
        assert ask(path)[0] == 403, path
        assert path.startswith("/v1/events") or ask(path, fleet="db")[0] == 403, path
    assert ask("/v1/policies/fleets/db")[0] == 403


@BOUNDS
def test_acts_on_what_is_not_theirs_are_403_and_change_nothing(ring: Keyring, bound: str) -> None:
    header, before = key_for(ring, bound), len(ring.api.get("/v1/events", workspace="theirs")["items"])
    restart = ids(ring, "theirs")[1]
    body = {"executor": "simulated", "fleet": "web"}
    acts: list[tuple[str, str, Any]] = [
        ("POST", "/v1/workspaces/theirs/writes", {"path": "a"}),
        ("POST", "/v1/workspaces/theirs/restarts", {"reason": "r"}),
        ("POST", "/v1/workspaces/theirs/probes", {"healthy": False}),
        ("POST", "/v1/workspaces/theirs/hold", {"reason": "r"}),
        ("POST", "/v1/workspaces/theirs/release", {"reason": "r"}),
        ("PUT", "/v1/workspaces/theirs", body),
        ("PUT", "/v1/workspaces/new", {"executor": "simulated", "fleet": "db"}),
        ("PUT", "/v1/policies/default", {}),
        ("PUT", "/v1/policies/fleets/db", {}),
        ("DELETE", "/v1/workspaces/theirs", None),
    ]
    for method, path, sent in acts:
        answer = ring.api.http.request(method, path, json=sent, headers=header)
        assert answer.status_code == 403, (method, path, answer.text)
    answer = ring.api.http.post(f"/v1/restarts/{restart}/cancel", json={"reason": "r"}, headers=header)
    assert answer.status_code == 404
    assert len(ring.api.get("/v1/events", workspace="theirs")["items"]) == before
    mine = ring.api.http.put("/v1/workspaces/mine", json={"executor": "simulated", "fleet": "db"}, headers=header)
    assert mine.status_code == (403 if bound.startswith("fleet") else 200), "into a fleet that is not theirs"
    ring.api.put_workspace("mine", fleet="web")
    removed = ring.api.http.delete("/v1/workspaces/mine", headers=header)
    assert removed.status_code == 200, removed.text


CODE = {"executor": "command", "target": {"argv": ["true"]}}


@pytest.mark.parametrize("bound", ["fleet=web", "fleet=w*", "workspace=mine", "workspace=m?ne"])
def test_code_is_registered_as_far_as_that_scope_reaches(ring: Keyring, bound: str) -> None:
    """Whatever may be registered otherwise: where a workspace is, and where it goes."""
    header, by_fleet = ring.header("coder", "operator", f"register-code@{bound}"), bound.startswith("fleet")
    before = ring.api.stored()

    def put(workspace: str, body: Any, fleet: str) -> tuple[int, str]:
        answer = ring.api.http.put(f"/v1/workspaces/{workspace}", json={**body, "fleet": fleet}, headers=header)
        return answer.status_code, answer.text

    beyond = [("theirs", "db"), ("new", "db"), ("theirs", "web"), *([("mine", "db")] if by_fleet else [("new", "web")])]
    for workspace, fleet in beyond:
        status, text = put(workspace, CODE, fleet)
        assert (status, "register-code" in text, bound in text) == (403, True, True), (workspace, fleet, text)
    assert put("new", {"executor": "command", "target": {"no": 1}}, "db")[0] == 403, "nothing is said of a program"
    assert ring.api.stored() == before
    assert put("mine", CODE, "web")[0] == 200
    if by_fleet:
        assert put("new", CODE, "web")[0] == 201, "where it is new, where it goes alone counts"
    assert put("mine", CODE, "db")[0] == (403 if by_fleet else 200)
    assert put("theirs", {"executor": "simulated"}, "web")[0] == 200, "what names no code asks for register alone"
    ring.api.put_workspace("mine", fleet="db")
    assert put("mine", CODE, "web")[0] == (403 if by_fleet else 200), "out of a fleet that is not theirs"


def test_who_registers_for_a_fleet_adds_to_it(ring: Keyring) -> None:
    header, body = ring.header("web", "operator", "register@fleet=web"), {"executor": "simulated", "fleet": "web"}
    for _ in range(2):  # a removed one is judged by the fleet that it was in
        answer = ring.api.http.put("/v1/workspaces/new", json=body, headers=header)
        assert answer.status_code == 201, answer.text
        assert answer.json()["fleet"] == "web"
        assert ring.api.http.delete("/v1/workspaces/new", headers=header).status_code == 200
    ring.api.http.delete("/v1/workspaces/theirs", headers=ring.owner)
    assert ring.api.http.put("/v1/workspaces/theirs", json=body, headers=header).status_code == 403
    beyond = ring.api.http.put("/v1/workspaces/other", json={"executor": "simulated"}, headers=header)
    assert beyond.status_code == 403, "the default fleet is not theirs"


def test_a_key_makes_no_key_that_may_do_more(ring: Keyring) -> None:
    maker, http = ring.header("maker", "writer", "writes@fleet=w*", "keys"), ring.api.http

    def create(name: str, role: str, *scopes: str) -> tuple[int, str]:
        body = {"name": name, "role": role, "scopes": scopes}
        answer = http.post("/v1/keys", json=body, headers=maker)
        return answer.status_code, answer.text

    for role, *scopes in (["admin"], ["writer"], ["writer", "writes@fleet=*"], ["writer", "writes@fleet=web", "audit"]):
        status, text = create("more", role, *scopes)
        assert (status, "of its own" in text) == (403, True), text
    ring.made("boss", "admin")
    assert http.post("/v1/keys/boss/rotate", headers=maker).status_code == 403
    assert {one["name"] for one in http.get("/v1/keys", headers=ring.owner).json()["items"]} == {"maker", "boss"}
    assert create("less", "writer", "writes@fleet=web")[0] == 201
    assert http.post("/v1/keys/less/rotate", headers=maker).status_code == 201
    assert http.post("/v1/keys/maker/rotate", headers=maker).status_code == 201
    assert http.delete("/v1/keys/boss", headers=maker).status_code == 200


def test_a_batch_is_judged_write_by_write(ring: Keyring) -> None:
    header = ring.header("w", "writer", "writes@fleet=web")
    batch = [{"workspace": name, "path": f"{number}"} for number, name in enumerate(("mine", "theirs", "new", "mine"))]
    answer = ring.api.http.post("/v1/writes", json=batch, headers=header)
    assert answer.status_code == 202, answer.text
    assert [one["index"] for one in answer.json()["results"]] == [0, 3]
    assert [(one["index"], one["problem"]["status"]) for one in answer.json()["rejected"]] == [(1, 403), (2, 403)]


def test_what_is_registered_by_its_first_write_is_in_the_default_fleet(sqlite_url: str, tmp_path: Path) -> None:
    with keyed(sqlite_url, tmp_path, auto_register="simulated") as ring:
        http = ring.api.http
        cases = (("fleet=web", 403), ("workspace=other", 403), ("fleet=default", 202), ("workspace=n*", 202))
        for number, (bound, status) in enumerate(cases):
            header = ring.header(f"k{number}", "writer", f"writes@{bound}")
            answer = http.post(f"/v1/workspaces/n{number}/writes", json={"path": "a"}, headers=header)
            assert answer.status_code == status, (bound, answer.text)
        assert {one["id"] for one in ring.api.get("/v1/workspaces")["items"]} == {"n2", "n3"}


def test_an_earlier_answer_is_not_given_for_what_is_theirs_no_more(ring: Keyring) -> None:
    header, http = key_for(ring, "fleet=web"), ring.api.http
    asked: list[tuple[str, Any]] = [
        ("/v1/workspaces/mine/restarts", {"reason": "r"}),
        ("/v1/workspaces/mine/hold", {"reason": "r"}),
        ("/v1/workspaces/mine/writes", {"path": "a", "source": "s", "id": "1"}),
        ("/v1/workspaces/mine/probes", {"healthy": False}),
    ]

    def send() -> list[int]:
        return [
            http.post(path, json=body, headers={**header, "Idempotency-Key": f"k{number}"}).status_code
            for number, (path, body) in enumerate(asked)
        ]

    assert set(send()) <= {200, 202}
    ring.api.put_workspace("mine", fleet="db")
    assert send() == [403] * len(asked)
    batch = [{"workspace": "mine", "path": "a", "source": "s", "id": "1"}]
    assert http.post("/v1/writes", json=batch, headers=header).json()["rejected"][0]["problem"]["status"] == 403


def test_a_workspace_that_moves_takes_its_history_along(ring: Keyring) -> None:
    web, db = key_for(ring, "fleet=web", "web"), key_for(ring, "fleet=db", "db")
    write, restart = ids(ring, "mine")
    ring.api.put_workspace("mine", fleet="db")
    paths = ["/v1/workspaces/mine", f"/v1/restarts/{restart}", f"/v1/writes/{write}", "/v1/events?workspace=mine"]
    for path in paths:
        assert ring.api.http.get(path, headers=web).status_code == 404, path
        assert ring.api.http.get(path, headers=db).status_code == 200, path
    for query in ("of=events&fleet=web", "of=restarts&fleet=web"):
        answer = ring.api.http.get(f"/v1/audit/export?{query}", headers=web)
        assert (answer.status_code, "mine" in answer.text) == (200, False), query
    for of in ("storms", "failures", "hot-files"):
        answer = ring.api.http.get(f"/v1/audit/{of}?fleet=web", headers=web)
        assert (answer.status_code, "mine" in answer.text) == (200, False), of


def test_a_stream_ends_with_the_move_of_its_workspace(ring: Keyring) -> None:
    header = key_for(ring, "fleet=web")
    with ring.api.http.stream("GET", "/v1/events/stream?workspace=mine", headers=header, timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry")
        ring.api.put_workspace("mine", fleet="db")
        ring.api.write("mine", path=SECRET)
        assert SECRET not in "".join(lines)


@pytest.mark.parametrize("over", ["revoked", "revoked elsewhere", "expired"])
def test_what_is_held_open_ends_with_its_key(ring: Keyring, tmp_path: Path, over: str) -> None:
    """A stream with nothing more to tell, a held answer with 401: in the process that was asked, and in another."""
    header = ring.header("held", "operator", **({"expires": "3s"} if over == "expired" else {}))
    url = str(ring.api.services.settings.url)
    held = ring.api.write("mine", path="b")["id"]
    ring.api.http.post("/v1/workspaces/mine/hold", json={"reason": "r"})
    with ThreadPoolExecutor(1) as pool, keyed(url, tmp_path) as other:
        waiting = pool.submit(ring.api.http.get, f"/v1/writes/{held}?wait=30", headers=header)
        with ring.api.http.stream("GET", "/v1/events/stream", headers=header, timeout=30) as stream:
            lines = stream.iter_lines()
            next(lines)
            if over != "expired":
                (other if over == "revoked elsewhere" else ring).revoke("held")
            begun_s = time.monotonic()
            ended = list(lines)
            answer = waiting.result(30)
        assert not any(line.startswith("data") and "FileWritten" in line for line in ended)
        assert answer.status_code == 401, answer.text
        assert over == "expired" or time.monotonic() - begun_s < 10, "long before the answer would have come"
        for api in (ring.api, other.api):
            assert api.http.get("/v1/workspaces", headers=header).status_code == 401
