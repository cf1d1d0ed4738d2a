"""Secrets of targets: refused where they are plain, and shown nowhere, whatever an earlier version has stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.owner_key import make_owner_key
from orchestrator.service.append import Author
from tests.api.conftest import Api, served

SECRET = "s3cr3t-of-the-test"


@pytest.fixture
def api(sqlite_url: str, tmp_path: Path) -> Iterator[Api]:
    """An API whose client sends the owner's key with every request: a command may be registered."""
    key = make_owner_key(tmp_path / "owner.key")
    with served(sqlite_url, owner_key=tmp_path / "owner.key") as api:
        api.http.headers["Authorization"] = f"Bearer {key}"
        yield api


def put(api: Api, workspace: str, **target: Any) -> Any:
    return api.http.put(f"/v1/workspaces/{workspace}", json={"executor": "command", "target": target})


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ({"argv": ["true"], "env": {"API_TOKEN": SECRET}}, "env.API_TOKEN"),
        ({"argv": ["deploy", f"--password={SECRET}"]}, "argv[1]"),
        (
            {"argv": ["true"], "ready": {"type": "http", "url": f"http://127.0.0.1/?token={SECRET}"}},
            "ready.url",
        ),
    ],
)
def test_a_plain_secret_is_refused_with_the_way_to_write_it(api: Api, target: dict[str, Any], field: str) -> None:
    before = api.stored()
    answer = put(api, "w", **target)
    assert answer.status_code == 422
    assert field in answer.text
    assert 'write {"env": NAME} or {"file": PATH}' in answer.json()["detail"]
    assert SECRET not in answer.text
    assert api.stored() == before


def test_a_reference_is_carried_out_and_its_value_is_nowhere(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_WORKER", SECRET)
    argv = ["/bin/sh", "-c", 'echo "this is $API_TOKEN"']
    answer = put(api, "w", argv=argv, env={"API_TOKEN": {"env": "OF_THE_WORKER"}})
    assert (answer.status_code, answer.json()["target"]["env"]) == (201, {"API_TOKEN": {"env": "OF_THE_WORKER"}})
    api.http.post("/v1/workspaces/w/restarts", json={"reason": "try"})
    api.restart_all()
    shown = "".join(
        api.http.get(path).text for path in ("/v1/workspaces/w", "/v1/events", "/v1/restarts", "/v1/audit/export")
    )
    assert "this is ***" in shown
    assert SECRET not in shown


def test_what_an_earlier_version_stored_is_masked_where_it_is_shown(api: Api) -> None:
    target = {"argv": ["true"], "env": {"API_TOKEN": SECRET, "PLAIN": "seen"}}
    registration = Registration(fleet="default", labels={}, executor="command", target=target, policy=PolicyPatch())
    api.services.operator.register("old", registration, Author(actor="local:ann"))
    shown = [api.http.get(path).json() for path in ("/v1/workspaces/old", "/v1/events?workspace=old")]
    assert [shown[0]["target"], shown[1]["items"][0]["data"]["target"]] == [
        {"argv": ["true"], "env": {"API_TOKEN": "***", "PLAIN": "seen"}}
    ] * 2
    again = api.http.put("/v1/workspaces/old", json={"executor": "command", "target": shown[0]["target"]})
    assert (again.status_code, "env.API_TOKEN" in again.text) == (422, True)
