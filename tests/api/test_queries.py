"""History, why, and pages that neither miss nor repeat."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import Api


def walk(api: Api, path: str, /, **query: Any) -> list[Any]:
    """Follow ``Link: rel="next"`` to the end."""
    found: list[Any] = []
    response = api.http.get(path, params=query)
    while True:
        assert response.status_code == 200, response.text
        found += response.json()["items"]
        following = response.links.get("next")
        if following is None:
            return found
        response = api.http.get(following["url"])


def test_workspaces_in_pages_and_filtered(any_api: Api) -> None:
    for number in range(7):
        labels = {"team": "a" if number % 2 else "b", "url": "http://x:1"}
        any_api.put_workspace(f"w{number}", fleet="blue" if number < 3 else "green", labels=labels)
    any_api.write("w1")

    def ids(**query: Any) -> list[str]:
        return [item["id"] for item in walk(any_api, "/v1/workspaces", limit=2, **query)]

    assert ids() == ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "ws"]
    assert ids(fleet="blue") == ["w0", "w1", "w2"]
    assert ids(label="team:a") == ids(label="team=a") == ["w1", "w3", "w5"]
    assert ids(label="url=http://x:1", fleet="blue") == ["w0", "w1", "w2"]
    assert ids(state="window_open") == ["w1"]


def test_restarts_newest_first_in_pages_and_filtered(any_api: Api) -> None:
    any_api.put_workspace("other", fleet="blue")
    for number in range(5):
        any_api.write("other" if number == 2 else "ws", path=f"f{number}.py")
        any_api.restart_all()
    every = walk(any_api, "/v1/restarts", limit=2)
    middle = every[2]

    def ids(**query: Any) -> list[str]:
        return [item["id"] for item in walk(any_api, "/v1/restarts", limit=2, **query)]

    assert [restart["queued_position"] for restart in every] == sorted(
        (restart["queued_position"] for restart in every), reverse=True
    )
    assert len(every) == 5
    assert ids(workspace="other") == ids(fleet="blue") == ids(path="f2.py") == [middle["id"]]
    assert ids(since=middle["queued_at"]) == [restart["id"] for restart in every[:3]]
    assert ids(until=middle["queued_at"]) == [restart["id"] for restart in every[3:]]
    assert ids(state="succeeded", cause="quiet") == [restart["id"] for restart in every]
    assert ids(state="gave_up") == []


def test_why_is_told(api: Api) -> None:
    for name in ("a.py", "b.py", "a.py"):
        api.write(path=name)
    api.restart_all()
    restart = api.get("/v1/restarts")["items"][0]["id"]
    story = api.get(f"/v1/restarts/{restart}")

    assert "3 writes" in story["explanation"]
    assert (story["cause"], story["writes"], story["files"]) == ("quiet", 3, 2)
    assert [cycle["attempt"] for cycle in story["cycles"]] == [1]
    assert story["top_paths"][0] == {"path": "a.py", "writes": 2}


def test_covered_writes_in_pages_without_recorded_ones(api: Api) -> None:
    api.put_workspace("ws", policy={"rules": [{"match": ["*.md"], "action": "record"}]})
    wanted = []
    for number in range(6):
        wanted.append(api.write(path=f"f{number}.py")["id"])
        assert api.write(path="notes.md")["decision"] == "recorded"
    api.restart_all()
    api.write(path="later.py")
    restart = api.get("/v1/restarts")["items"][0]["id"]

    assert [event["id"] for event in walk(api, f"/v1/restarts/{restart}/writes", limit=2)] == wanted


def test_log_in_pages_and_filtered(any_api: Api) -> None:
    any_api.put_workspace("other")
    for number in range(5):
        any_api.write("other" if number == 2 else "ws", path=f"f{number}")
    every = walk(any_api, "/v1/events", limit=3)
    positions = [event["position"] for event in every]

    assert positions == sorted(set(positions))
    assert every[0]["type"] == "PolicyChanged"
    writes = walk(any_api, "/v1/events", limit=2, workspace="ws", type="FileWritten")
    assert [event["data"]["path"] for event in writes] == ["f0", "f1", "f3", "f4"]
    types = {event["type"] for event in walk(any_api, "/v1/events", type="WorkspaceRegistered,PolicyChanged")}
    assert types == {"WorkspaceRegistered", "PolicyChanged"}

    last = any_api.get("/v1/events", after=positions[-1])
    assert (last["items"], last["more"], last["next_after"]) == ([], False, positions[-1])
