"""No name holds a slash: ``TENANT/NAME`` can come without a byte of the log changing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.keyring import Keyring, keyed

NAMES = ("a/b", "/a", "a/", "/")
REFUSED = (400, 404, 405, 422)


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.http.headers.update(found.owner)
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_workspace_fleet_pool_or_key_holds_a_slash(ring: Keyring, name: str) -> None:
    plain: dict[str, Any] = {"executor": "simulated"}
    asked: list[tuple[str, str, Any]] = [
        ("PUT", f"/v1/workspaces/{quote(name, safe='')}", plain),
        ("PUT", f"/v1/workspaces/{name}", plain),
        ("PUT", "/v1/workspaces/ws", {**plain, "fleet": name}),
        ("PUT", "/v1/workspaces/ws", {**plain, "target": {"pool": name}}),
        ("PUT", f"/v1/policies/fleets/{quote(name, safe='')}", {"quiet": "1s"}),
        ("POST", f"/v1/workspaces/{quote(name, safe='')}/writes", {"path": "x"}),
        ("POST", "/v1/writes", [{"workspace": name, "path": "x"}]),
        ("POST", "/v1/keys", {"name": name, "role": "writer"}),
        ("POST", "/v1/keys", {"name": "ok", "role": "writer", "scopes": [f"writes@fleet={name}"]}),
    ]
    before = ring.api.stored()
    for method, path, body in asked:
        answer = ring.api.http.request(method, path, json=body)
        assert answer.status_code in REFUSED, (method, path, body, answer.text)
    assert ring.api.stored() == before


@pytest.mark.parametrize("name", NAMES)
def test_no_workspace_that_a_first_write_would_register_holds_one(sqlite_url: str, tmp_path: Path, name: str) -> None:
    with keyed(sqlite_url, tmp_path, auto_register="simulated") as ring:
        before = ring.api.stored()
        batch = [{"workspace": name, "path": "x"}, {"workspace": "good", "path": "x"}]
        answer = ring.api.http.post("/v1/writes", json=batch, headers=ring.owner).json()
        assert ([each["index"] for each in answer["rejected"]], answer["accepted"]) == ([0], 1)
        assert ring.api.get("/v1/workspaces")["items"][0]["id"] == "good"
        assert ring.api.stored() == before + 2, "the good one's registration and write"
