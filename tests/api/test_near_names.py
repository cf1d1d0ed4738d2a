"""Who names a workspace that is not there is told which names are near: of those that they may read, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.service import near_names
from tests.api.keyring import Header, Keyring, keyed

ACTS = {
    "hold": ("POST", "/v1/workspaces/{}/hold", {"reason": "x"}),
    "release": ("POST", "/v1/workspaces/{}/release", {"reason": "x"}),
    "restart": ("POST", "/v1/workspaces/{}/restarts", {"reason": "x"}),
    "probe": ("POST", "/v1/workspaces/{}/probes", {"healthy": False}),
    "remove": ("DELETE", "/v1/workspaces/{}", None),
    "cancel": ("POST", "/v1/restarts/{}/cancel", {"reason": "x"}),
}
SCOPES = ("read", "restarts", "holds", "probes", "register", "cancel")


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    """``storefront`` of fleet ``web``, ``storefronts`` of ``db``, one with another name, and one that was removed."""
    with keyed(sqlite_url, tmp_path) as found:
        for name, fleet in (("storefront", "web"), ("storefronts", "db"), ("billing", "web"), ("storefron", "web")):
            found.api.put_workspace(name, fleet=fleet)
        found.api.http.delete("/v1/workspaces/storefron", headers=found.owner)
        yield found


def told(ring: Keyring, act: str, name: str, header: Header) -> dict[str, Any]:
    method, path, body = ACTS[act]
    answer = ring.api.http.request(method, path.format(name), headers=header, json=body)
    problem: dict[str, Any] = answer.json()
    return problem


@pytest.mark.parametrize("act", ACTS)
def test_the_nearest_names_come_first(ring: Keyring, act: str) -> None:
    problem = told(ring, act, "Storefrnt", ring.owner)
    assert (problem["status"], problem["near"]) == (404, ["storefront", "storefronts"])
    assert problem["detail"].endswith("; near that name: storefront, storefronts")
    nothing = told(ring, act, "q", ring.owner)
    assert (nothing["status"], "near" in nothing, "near" in nothing["detail"]) == (404, False, False)
    again = told(ring, act, "storefron", ring.owner)
    assert (again["status"], again["near"]) == (404, ["storefront", "storefronts"]), "a removed one is near nothing"


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("bound", ["fleet=web", "workspace=storefront", "workspace=*t"])
def test_a_narrow_key_learns_no_other_names(ring: Keyring, act: str, bound: str) -> None:
    """The same is said of a workspace beyond its reach as of one that is not there."""
    header = ring.header("part", "operator", *(f"{scope}@{bound}" for scope in SCOPES))
    for name in ("storefrontz", "storefronts"):
        problem = told(ring, act, name, header)
        assert problem["status"] in (403, 404)
        assert problem["near"] == ["storefront"], problem
        assert "storefronts" not in str(problem).replace(name, "")


@pytest.mark.parametrize("act", ACTS)
def test_who_may_act_on_more_than_they_may_read_learns_what_they_may_read(ring: Keyring, act: str) -> None:
    scopes = (f"{scope}@workspace=billing" if scope == "read" else scope for scope in SCOPES)
    header = ring.header("blind", "operator", *scopes)
    assert "near" not in told(ring, act, "storefrnt", header)
    assert told(ring, act, "biling", header)["near"] == ["billing"]


def test_one_that_is_there_was_meant(ring: Keyring) -> None:
    header = ring.header("reader", "operator", "holds@workspace=billing")
    problem = told(ring, "hold", "storefront", header)
    assert (problem["status"], "near" in problem) == (403, False)


def test_cancel_says_which_restart_a_named_workspace_has(ring: Keyring) -> None:
    asked = ring.api.http.post("/v1/workspaces/billing/restarts", json={"reason": "x"}, headers=ring.owner)
    assert asked.status_code == 202
    ring.api.tick()
    [record] = ring.api.get("/v1/restarts", workspace="billing")["items"]
    problem = told(ring, "cancel", "billing", ring.owner)
    assert problem["status"] == 404
    assert f"billing is a workspace, and its restart is {record['id']}" in problem["detail"]
    header = ring.header("part", "operator", *(f"{scope}@workspace=storefront" for scope in SCOPES))
    assert "billing is a workspace" not in told(ring, "cancel", "billing", header)["detail"]


def test_a_large_installation_is_looked_at_in_part(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones by id, and those that go on as the name begins: a mistyped name must not cost a look at all."""
    monkeypatch.setattr(near_names, "LOOKED_AT", 2)
    for number in range(4):
        ring.api.put_workspace(f"a{number}")
    assert told(ring, "hold", "storefrnt", ring.owner)["near"] == ["storefront", "storefronts"]
