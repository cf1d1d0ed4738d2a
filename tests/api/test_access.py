"""Who is admitted, and what asks for a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bootstrap import user_name
from orchestrator.owner_key import make_owner_key, new_key
from orchestrator.ports.executor import names_code
from orchestrator.ports.store import EventFilter
from tests.api.conftest import Api, served
from workers.executors.command import CommandExecutor
from workers.executors.simulated import SimulatedExecutor

COMMAND = {"executor": "command", "target": {"argv": ["true"]}}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "owner.key"


@pytest.fixture
def keyed(sqlite_url: str, key_file: Path) -> Iterator[tuple[Api, dict[str, str]]]:
    """An API with an owner's key, and the header that sends it."""
    header = {"Authorization": f"Bearer {make_owner_key(key_file)}"}
    with served(sqlite_url, owner_key=key_file) as api:
        yield api, header


def refusal(answer: Any) -> str:
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (401, "unauthenticated"), answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")
    detail: str = answer.json()["detail"]
    return detail


def actors(api: Api) -> list[str]:
    with api.services.store.read() as reader:
        return [event.actor for event in reader.events(EventFilter(workspace="w"))]


@pytest.mark.parametrize(
    "body",
    [COMMAND, {"executor": "simulated", "target": {"ledger": "l"}}, {"executor": "command", "target": {"no": 1}}],
    ids=["program", "path", "nothing is said of a target's faults"],
)
def test_what_names_code_asks_for_the_key(keyed: tuple[Api, dict[str, str]], body: dict[str, Any]) -> None:
    api, header = keyed
    said = refusal(api.http.put("/v1/workspaces/w", json=body))
    assert "register-code" in said
    assert "Authorization: Bearer ro_" in said
    wrong = ("Bearer " + new_key(), "Bearer x", "Basic " + header["Authorization"][7:])
    for authorization in wrong:
        refusal(api.http.put("/v1/workspaces/w", json=body, headers={"Authorization": authorization}))
    assert actors(api) == []
    assert api.http.put("/v1/workspaces/w", json=body, headers=header).status_code in (201, 422)


def test_the_rest_is_open_on_loopback_and_says_who_it_was(keyed: tuple[Api, dict[str, str]]) -> None:
    api, header = keyed
    api.put_workspace("w", target={"delay": "1s", "pool": "host-2"})
    api.write("w")
    assert api.http.post("/v1/writes", json=[{"workspace": "w", "path": "a"}], headers=header).status_code == 202
    assert api.http.put("/v1/workspaces/w", json=COMMAND, headers=header).status_code == 200
    refusal(api.http.get("/v1/workspaces", headers={"Authorization": "Bearer ro_typo"}))
    assert actors(api) == ["unauthenticated", "unauthenticated", f"user:{user_name()}", f"user:{user_name()}"]


def test_an_api_without_a_key_says_how_to_have_one(api: Api) -> None:
    assert "register-code" in refusal(api.http.put("/v1/workspaces/w", json=COMMAND))
    sent = api.http.put("/v1/workspaces/w", json=COMMAND, headers={"Authorization": f"Bearer {new_key()}"})
    assert "orchestrator keys owner FILE" in refusal(sent)


def test_closed_asks_for_the_key_for_everything(sqlite_url: str, key_file: Path) -> None:
    header = {"Authorization": f"bearer {make_owner_key(key_file)}"}
    with served(sqlite_url, owner_key=key_file, loopback="closed") as api:
        for method, path in (("GET", "/v1/workspaces"), ("POST", "/v1/writes"), ("GET", "/metrics")):
            refusal(api.http.request(method, path))
        assert api.http.get("/v1/workspaces", headers=header).status_code == 200
        for probe in ("/livez", "/readyz"):
            assert api.http.get(probe, headers={"Authorization": "Bearer ro_old"}).status_code == 200


def test_of_an_executor_that_does_not_say_every_target_names_code() -> None:
    simulated, command = SimulatedExecutor(), CommandExecutor()
    assert not names_code(simulated, {"delay": "1s"})
    assert names_code(simulated, {"delay": "1s", "ledger": "/x"})
    assert names_code(command, {})


def test_every_answer_is_for_nobody_to_keep_or_to_guess_at(api: Api) -> None:
    for method, path in (("GET", "/livez"), ("POST", "/v1/writes"), ("GET", "/none"), ("GET", "/v1/workspaces")):
        answer = api.http.request(method, path)
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers.get_list("cache-control") == ["no-store"]
    with api.http.stream("GET", "/v1/events/stream") as stream:
        assert stream.headers.get_list("cache-control") == ["no-store"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_by_head(api: Api, path: str) -> None:
    api.tick()
    got, head = api.http.get(path), api.http.head(path)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", got.headers["content-type"])


@pytest.mark.parametrize("name", [".", "..", "-", "-x", "%2E%2E"])
def test_what_clients_fold_or_take_for_an_option_is_no_id(api: Api, name: str) -> None:
    """Spelled out on the wire: any client's library would fold it first."""
    answers = [
        api.http.put("/v1/workspaces/a", json={"executor": "simulated", "fleet": name}),
        api.http.put("/v1/workspaces/a", json={"executor": "simulated", "target": {"pool": name}}),
        api.http.post("/v1/writes", json=[{"workspace": name, "path": "f"}]),
    ]
    if name.startswith("-"):
        answers += [
            api.http.put(f"/v1/workspaces/{name}", json={"executor": "simulated"}),
            api.http.post(f"/v1/workspaces/{name}/writes", json={"path": "f"}),
            api.http.put(f"/v1/policies/fleets/{name}", json={}),
        ]
        assert api.http.delete(f"/v1/workspaces/{name}").status_code == 404  # what was registered before can be removed
    assert {answer.status_code for answer in answers} == {422}
