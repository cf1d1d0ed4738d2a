"""The export over HTTP: streamed with flat memory, named, and refused where it makes no sense."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
from httpx2 import RemoteProtocolError

from orchestrator.api import services
from orchestrator.errors import StorageUnavailable
from orchestrator.history import export as export_module
from orchestrator.history.export import exported
from tests.api.conftest import Api
from tests.waiting import wait_until

EXPORT = "/v1/audit/export"


@pytest.fixture
def busy(any_api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(export_module, "_PAGE", 2)
    any_api.put_workspace("a:b", fleet="blue")
    for number in range(4):
        any_api.write("a:b", path=f"f{number}")
        any_api.restart_all()
    return any_api


def fetched(api: Api, **query: Any) -> tuple[str, dict[str, str]]:
    response = api.http.get(EXPORT, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["transfer-encoding"] == "chunked"
    return response.text, dict(response.headers)


def test_every_format_and_subject(busy: Api) -> None:
    restarts = list(reversed(busy.get("/v1/restarts", limit=1_000)["items"]))
    for of in ("events", "restarts"):

        def rows(of: str = of) -> Any:
            """What there was to export: the newest event says who exports."""
            return busy.get("/v1/events", limit=1_000)["items"][:-1] if of == "events" else restarts

        ndjson, headers = fetched(busy, of=of)
        assert [json.loads(line) for line in ndjson.splitlines()] == rows()
        assert headers["content-type"] == "application/x-ndjson"
        assert headers["content-disposition"] == f'attachment; filename="{of}-all.ndjson"'
        array, headers = fetched(busy, of=of, format="json")
        assert json.loads(array) == rows()
        assert headers["content-type"] == "application/json"
        table, headers = fetched(busy, of=of, format="csv")
        assert headers["content-type"].startswith("text/csv")
        assert len(list(csv.reader(table.splitlines()))) == len(rows()) + 1


def test_the_scope_and_its_name(busy: Api) -> None:
    mine, headers = fetched(busy, workspace="a:b", after=5)
    events = [json.loads(line) for line in mine.splitlines()]
    assert {event["workspace"] for event in events} == {"a:b"}
    assert min(event["position"] for event in events) > 5
    assert headers["content-disposition"] == 'attachment; filename="events-a_b.ndjson"'
    last = events[-1]
    none, _ = fetched(busy, since="2999-01-01T00:00:00Z")
    assert none == ""
    until, _ = fetched(busy, until=last["recorded_at"], fleet="blue")
    assert len(until.splitlines()) < len(events) + 5
    assert last["id"] not in until


def test_what_makes_no_sense_is_refused(api: Api) -> None:
    def parameter(**query: Any) -> str:
        refused = api.http.get(EXPORT, params=query)
        assert refused.status_code == 422, refused.text
        name: str = refused.json()["errors"][0]["parameter"]
        return name

    assert parameter(format="xml") == "format"
    assert parameter(of="people") == "of"
    assert parameter(after=-1) == "after"
    assert parameter(since="2026-11-24T00:00:00Z", until="2026-11-23T00:00:00Z") == "since"
    assert parameter(colour="red") == "colour"
    assert api.http.get(EXPORT, params={"workspace": "nobody"}).status_code == 404


def test_an_export_counts_as_a_stream(api: Api) -> None:
    streams = api.server.app.state.exports
    streams.open = streams.most
    refused = api.http.get(EXPORT)
    streams.open = 0
    assert refused.status_code == 429
    assert api.http.get(EXPORT).status_code == 200
    wait_until(lambda: streams.open == 0, what="the export is over")


def test_a_database_that_goes_away_leaves_no_whole_file(
    busy: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = exported

    def broken(*arguments: Any) -> Any:
        pieces = whole(*arguments)
        yield next(pieces)
        raise StorageUnavailable("the database went away")

    monkeypatch.setattr(services, "exported", broken)
    with pytest.raises(RemoteProtocolError):
        busy.http.get(EXPORT)
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert "export.broken" in said
    assert "Traceback" not in said
    assert busy.get("/v1/workspaces/ws")["state"] == "idle"
