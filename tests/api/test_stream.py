"""Server-sent events: nothing missed, nothing twice, and an end when there has to be one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest

from orchestrator.api.routes import stream
from tests.api.conftest import Api, served
from tests.waiting import wait_until

STREAM = "/v1/events/stream"


@contextmanager
def lines_of(api: Api, headers: dict[str, str] | None = None, **query: Any) -> Iterator[Iterator[str]]:
    with api.http.stream("GET", STREAM, params=query, headers=headers or {}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response.iter_lines()


def frames(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Yield each event's fields, as an EventSource reads them."""
    fields: dict[str, str] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def test_stream_has_what_the_log_has(api: Api) -> None:
    api.write()
    api.restart_all()
    logged = api.get("/v1/events")["items"]
    with lines_of(api, after=0) as lines:
        found = list(islice(frames(lines), len(logged)))

    assert [json.loads(frame["data"]) for frame in found] == logged
    assert [frame["id"] for frame in found] == [str(event["position"]) for event in logged]
    assert [frame["event"] for frame in found] == [event["type"] for event in logged]


def test_stream_without_a_start_tells_only_news(api: Api) -> None:
    api.write(path="before")
    with lines_of(api) as lines:
        assert next(lines).startswith("retry: ")
        api.write(path="after")
        frame = next(frames(lines))

    assert json.loads(frame["data"])["data"]["path"] == "after"


def test_filtered_stream_passes_over_the_rest(api: Api) -> None:
    api.put_workspace("other")
    with lines_of(api, after=0, workspace="other", type="FileWritten,WorkspaceHeld") as lines:
        for number in range(3):
            api.write("ws")
            api.write("other", path=f"f{number}")
        api.http.post("/v1/workspaces/other/hold", json={"reason": "enough"})
        found = [json.loads(frame["data"]) for frame in islice(frames(lines), 4)]

    assert [event["data"].get("path") for event in found] == ["f0", "f1", "f2", None]


def test_reconnects_under_load_neither_miss_nor_repeat(any_api: Api) -> None:
    writers, each = 4, 40

    def write(number: int) -> None:
        for count in range(each):
            any_api.write(path=f"{number}-{count}")

    def read(cut_after: int) -> list[int]:
        seen: list[int] = []
        connections = 0
        while True:
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            with lines_of(any_api, headers, after=0) as lines:
                connections += 1
                for count, frame in enumerate(frames(lines), 1):
                    seen.append(int(frame["id"]))
                    if '"path":"the end"' in frame["data"]:
                        assert connections > 3
                        return seen
                    if count == cut_after:
                        break

    with ThreadPoolExecutor(writers + 2) as pool:
        readers = [pool.submit(read, cut_after) for cut_after in (7, 23)]
        for writer in [pool.submit(write, number) for number in range(writers)]:
            writer.result(60)
        any_api.write(path="the end")
        found = [reader.result(60) for reader in readers]

    logged = [event["position"] for event in any_api.get("/v1/events", limit=1000)["items"]]
    assert len(logged) == writers * each + 3
    assert found == [logged, logged]


def test_idle_stream_is_kept_open(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)
    with lines_of(api) as lines:
        comments = list(islice((line for line in lines if line.startswith(":")), 3))

    assert comments[1:] == [": still here", ": still here"]


def test_streams_are_bounded_and_a_client_that_leaves_makes_room(api: Api) -> None:
    streams: stream.OpenStreams = api.server.app.state.streams
    streams.most = 1
    with lines_of(api) as lines:
        next(lines)
        refused = api.http.get(STREAM)
    wait_until(lambda: streams.open == 0, what="the server notices that the client left")
    with lines_of(api) as lines:
        assert next(lines).startswith("retry: ")

    assert refused.status_code == 429
    assert refused.json()["type"].endswith(":too-many-requests")


def test_stop_of_the_server_ends_streams_and_held_answers(sqlite_url: str) -> None:
    with served(sqlite_url) as api, ThreadPoolExecutor(2) as pool:
        api.put_workspace()
        write = api.write()
        held = pool.submit(api.get, f"/v1/writes/{write['id']}", wait=50)
        with lines_of(api) as lines:
            next(lines)
            began = time.monotonic()
            api.server.should_exit = True
            rest = list(lines)
        assert held.result(10)["status"] == "pending"
        assert time.monotonic() - began < 3

    assert not any(line.startswith("data") for line in rest)
