"""Questions over many, over HTTP: answers as described, and refusals that name the parameter."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api

ROUTES = ("summary", "storms", "hot-files", "failures")


@pytest.fixture
def busy(any_api: Api) -> Api:
    """Two covered bursts, and one that failed for good."""
    any_api.put_workspace("ws", policy={"max_attempts": 1, "give_up_backoff": "1h"}, target={"delay": "0s"})
    any_api.put_workspace("bad", fleet="blue", policy={"max_attempts": 1}, target={"delay": "0s", "fail_first": 9})
    for paths in (("a.py", "b.py", "a.py"), ("a.py",)):
        for path in paths:
            any_api.write(path=path)
        any_api.restart_all()
    any_api.write("bad", path="x.py")
    any_api.restart_all()
    return any_api


def test_questions_are_answered(busy: Api) -> None:
    mine = busy.get("/v1/audit/summary", workspace="ws")
    assert mine["scope"] == {"workspace": "ws", "fleet": None, "since": None, "until": None}
    assert (mine["restarts"], mine["writes_covered"], mine["restarts_avoided"]) == (2, 4, 2)
    assert mine["by_state"] == {"succeeded": 2}
    assert mine["oldest_write_waited"]["restarts"] == 2
    assert mine["oldest_write_waited"]["to_success_ms"]["max"] >= mine["oldest_write_waited"]["to_start_ms"]["max"]
    assert busy.get("/v1/audit/summary", fleet="blue")["by_state"] == {"gave_up": 1}

    assert [item["writes"] for item in busy.get("/v1/audit/storms")["items"]] == [3, 1, 1]
    assert [item["writes"] for item in busy.get("/v1/audit/storms", workspace="ws", limit=1)["items"]] == [3]

    files = busy.get("/v1/audit/hot-files", workspace="ws", limit=2)
    assert [(item["path"], item["writes"]) for item in files["items"]] == [("a.py", 3), ("b.py", 1)]
    assert files["complete"]
    assert [item["path"] for item in busy.get("/v1/audit/hot-files", fleet="blue")["items"]] == ["x.py"]

    failed = busy.get("/v1/audit/failures")
    assert (sum(failed["failed"].values()), failed["gave_up"], failed["complete"]) == (1, 1, True)
    assert [item["type"] for item in failed["items"]] == ["RestartGaveUp", "CycleFailed"]
    assert failed["items"][1]["message"]
    assert busy.get("/v1/audit/failures", workspace="ws")["items"] == []


def test_a_span_bounds_every_question(busy: Api) -> None:
    storms = busy.get("/v1/audit/storms", workspace="ws")["items"]
    second = min(storms, key=lambda item: int(item["writes"]))
    since = {"since": second["queued_at"]}
    assert busy.get("/v1/audit/summary", workspace="ws", **since)["restarts"] == 1
    assert [item["id"] for item in busy.get("/v1/audit/storms", workspace="ws", **since)["items"]] == [second["id"]]
    assert busy.get("/v1/audit/hot-files", workspace="ws", **since)["items"] == []
    before = {"until": second["queued_at"]}
    assert len(busy.get("/v1/audit/hot-files", workspace="ws", **before)["items"]) == 2
    assert busy.get("/v1/audit/failures", **before)["items"] == []


@pytest.mark.parametrize("route", ROUTES)
def test_bad_input_is_named(api: Api, route: str) -> None:
    def refusal(**query: str | int) -> str:
        refused = api.http.get(f"/v1/audit/{route}", params=query)
        assert refused.status_code == 422, refused.text
        name: str = refused.json()["errors"][0]["parameter"]
        return name

    assert api.http.get(f"/v1/audit/{route}", params={"workspace": "nobody"}).status_code == 404
    assert refusal(since="2026-11-24T00:00:00Z", until="2026-11-23T00:00:00Z") == "since"
    assert refusal(until="soon") == "until"
    assert refusal(since="2026-11-24T00:00:00") == "since"
    assert refusal(workspace="not an id") == "workspace"
    assert refusal(nonsense="1") == "nonsense"
    if route != "summary":
        assert refusal(limit=-1) == refusal(limit=0) == refusal(limit=1_001) == refusal(limit="many") == "limit"
