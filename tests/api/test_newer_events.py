"""An API of an older version beside a newer one: what it cannot read it names, and everything else goes on."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.storage.engines import sqlite_engine
from orchestrator.storage.urls import database_url
from tests.api.conftest import Api
from tests.api.test_metrics import scrape

NEWER = (
    "INSERT INTO events (id, workspace, type, schema, data, actor, recorded_at) SELECT 'evt_newer', 'ws', 'FileMoved',"
    ' 1, \'{"from":"a","to":"b"}\', \'key:ci\', max(recorded_at) FROM events'
)


def append(url: str, words: str) -> int:
    """Append an event as a newer version does, and return its position."""
    engine = sqlite_engine(database_url(url))
    with engine.begin() as connection:
        connection.execute(sa.text(words.replace(":", r"\:")))
        position: int = connection.execute(sa.text("SELECT max(position) FROM events")).scalar_one()
    engine.dispose()
    return position


def test_an_event_of_an_unknown_type_stops_only_who_reads_it(api: Api, sqlite_url: str) -> None:
    before = api.write()
    position = append(sqlite_url, NEWER)
    after = api.write(path="later")
    answer = api.http.get("/v1/events")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    said = f"the event evt_newer at position {position} cannot be read: its type 'FileMoved' is not one that this"
    assert answer.json()["type"].endswith(":unreadable")
    assert answer.json()["detail"].startswith(said)
    assert api.http.get("/v1/writes/evt_newer").status_code == 503
    assert len(api.get("/v1/events", after=position)["items"]) == 1
    assert scrape(api)["orchestrator_up"] == 0
    for write in (before, after):
        assert api.get(f"/v1/writes/{write['id']}")["status"] == "pending"
    api.restart_all()
    assert api.get(f"/v1/writes/{before['id']}")["status"] == "covered"


def test_newer_data_of_a_known_type_is_read_as_far_as_it_is_known(api: Api, sqlite_url: str) -> None:
    held = NEWER.replace("FileMoved", "ProbeSuppressed").replace(
        '{"from":"a","to":"b"}', '{"detail":"x","latency_ms":7,"reason":"held"}'
    )
    position = append(sqlite_url, held.replace(" 1, ", " 2, "))
    [event] = api.get("/v1/events", after=position - 1)["items"]
    assert (event["schema"], event["data"]) == (2, {"reason": "held", "detail": "x"})
