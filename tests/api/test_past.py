"""Workspaces as they were, over HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.domain.encoding import format_instant, parse_instant
from tests.api.conftest import Api
from tests.api.test_queries import walk


def instants(api: Api, workspace: str = "ws") -> dict[str, str]:
    """Return when each type of event was last recorded."""
    return {event["type"]: event["recorded_at"] for event in api.get("/v1/events", workspace=workspace)["items"]}


def test_a_workspace_as_it_was(any_api: Api) -> None:
    any_api.write(path="a.py")
    any_api.restart_all()
    then = instants(any_api)

    def state(event: str) -> str:
        found: str = any_api.get("/v1/workspaces/ws", at=then[event])["state"]
        return found

    assert state("WorkspaceRegistered") == "idle"
    assert state("FileWritten") == "window_open"
    assert state("CycleStarted") == "running"
    assert state("CycleSucceeded") == "idle"
    shown = any_api.get("/v1/workspaces/ws", at=then["FileWritten"])
    assert (shown["pending_writes"], shown["at"]) == (1, then["FileWritten"])
    assert shown["due_at"] is not None
    now = any_api.get("/v1/workspaces/ws")
    last = any_api.get("/v1/workspaces/ws", at=then["CycleSucceeded"])
    assert last == now | {"at": then["CycleSucceeded"], "position": last["position"]}
    before = format_instant(parse_instant(then["WorkspaceRegistered"]) - timedelta(microseconds=1))
    assert any_api.http.get("/v1/workspaces/ws", params={"at": before}).status_code == 404
    assert any_api.http.get("/v1/workspaces/other", params={"at": before}).status_code == 404


def test_the_fleet_as_it_was_in_pages(any_api: Api) -> None:
    for number in range(5):
        any_api.put_workspace(f"w{number}", fleet="blue" if number % 2 else "green")
    at = max(event["recorded_at"] for event in any_api.get("/v1/events")["items"])
    any_api.http.request("DELETE", "/v1/workspaces/w1", params={"reason": "gone"})
    any_api.put_workspace("w9")

    def ids(**query: str) -> list[str]:
        return [item["id"] for item in walk(any_api, "/v1/workspaces", limit=2, at=at, **query)]

    assert ids() == ["w0", "w1", "w2", "w3", "w4", "ws"]
    assert ids(fleet="blue") == ["w1", "w3"]
    assert ids(state="held") == []


@pytest.mark.parametrize("path", ["/v1/workspaces", "/v1/workspaces/ws"])
@pytest.mark.parametrize("at", ["2999-01-01T00:00:00Z", "yesterday", "2026-11-23", "2026-11-23T12:00:00", ""])
def test_impossible_instants_name_the_parameter(api: Api, path: str, at: str) -> None:
    refused = api.http.get(path, params={"at": at})
    assert refused.status_code == 422
    assert [error["parameter"] for error in refused.json()["errors"]] == ["at"]


@pytest.mark.parametrize("at", ["0001-01-01T01:03:01+03:02", "9999-12-31T23:00:00-01:01", "1969-12-31T23:59:59Z"])
def test_an_instant_of_a_far_year_is_told_from_one_that_is_written_wrongly(api: Api, at: str) -> None:
    refused = api.http.get("/v1/workspaces", params={"at": at})
    assert refused.status_code == 422
    assert refused.json()["detail"] == f"at: {at} is not between the years 1970 and 9998"


def test_an_empty_span_is_refused(api: Api) -> None:
    span = {"since": "2026-11-24T00:00:00Z", "until": "2026-11-23T00:00:00Z"}
    refused = api.http.get("/v1/restarts", params=span)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == "since"
