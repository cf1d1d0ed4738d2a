"""An API of an older version beside a newer one: what it cannot read it names, and everything else goes on."""

from __future__ import annotations

import json
from itertools import islice

import sqlalchemy as sa

from orchestrator.audit.periodic_run import PeriodicVerification
from orchestrator.domain.events import UnknownEvent
from orchestrator.history.replay import replay
from orchestrator.ports.store import EventFilter
from orchestrator.storage.engines import migration_engine
from orchestrator.storage.urls import database_url
from tests.api.conftest import Api
from tests.api.test_metrics import scrape
from tests.api.test_stream import frames, lines_of

NEWER = (
    "INSERT INTO events (id, workspace, type, schema, data, actor, recorded_at) SELECT 'evt_newer', 'ws', 'FileMoved',"
    ' 1, \'{"from":"a","to":"b"}\', \'key:ci\', max(recorded_at) FROM events'
)


def append(url: str, words: str) -> int:
    """Append an event as a newer version does, and return its position."""
    engine = migration_engine(database_url(url))
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


STORED = '{"at":1e22,"key":"k1","many":123456789012345678901234567890,"nested":{"share":0.5}}'
OF_NOBODY = (
    "INSERT INTO events (id, type, schema, data, actor, recorded_at) SELECT 'evt_newer', 'MoonRisen', 7,"
    f" '{STORED}', 'key:ci', max(recorded_at) FROM events"
)


def test_an_unknown_type_of_no_workspace_is_shown_as_stored_and_passed_over(any_api: Api) -> None:
    """CONTRACT section 8: the old half of a rolling upgrade goes on, whatever reads the log."""
    before = any_api.write()
    position = append(any_api.services.settings.url, OF_NOBODY)
    after = any_api.write(path="later")

    [event] = any_api.get("/v1/events", after=position - 1, limit=1)["items"]
    assert (event["type"], event["schema"], event["workspace"], event["version"]) == ("MoonRisen", 7, None, None)
    assert event["data"] == json.loads(STORED)
    assert any_api.get("/v1/events", workspace="ws")["items"][-1]["id"] == after["id"]
    with lines_of(any_api, after=position - 1) as lines:
        told, later = islice(frames(lines), 2)
    assert (told["id"], told["event"], json.loads(told["data"])) == (str(position), "MoonRisen", event)
    assert json.loads(later["data"])["id"] == after["id"]
    assert any_api.http.get("/v1/writes/evt_newer").status_code == 404

    any_api.restart_all()
    for write in (before, after):
        assert any_api.get(f"/v1/writes/{write['id']}")["status"] == "covered"
    [restart] = any_api.get("/v1/restarts")["items"]
    assert any_api.get(f"/v1/restarts/{restart['id']}")["writes"] == 2
    figures = scrape(any_api)
    assert (figures["orchestrator_up"], figures["orchestrator_ledger_imbalance"]) == (1, 0)


def test_questions_and_proofs_pass_over_an_unknown_type_of_no_workspace(any_api: Api) -> None:
    any_api.write()
    any_api.restart_all()
    store = any_api.services.store
    before = replay(store)
    append(any_api.services.settings.url, OF_NOBODY)
    found = replay(store)
    assert (found.broken, found.events) == (None, before.events + 1)
    assert (found.differences, found.policies) == (before.differences, before.policies)
    with store.read() as reader:
        [unknown] = [event for event in reader.events(EventFilter(limit=100)) if event.type == "MoonRisen"]
        assert reader.events_by_id([unknown.id]) == {unknown.id: unknown}
        assert reader.event(unknown.id) == unknown
    assert type(unknown.data) is UnknownEvent
    report = PeriodicVerification(store).run()
    assert report is not None
    assert (report.good, report.passed_over) == (True, {"MoonRisen": 1})
    end = unknown.recorded_at.isoformat()
    assert any_api.get("/v1/workspaces/ws", at=end)["id"] == "ws"
    assert any_api.get("/v1/workspaces", at=end)["items"]
    for question in ("summary", "storms", "hot-files", "failures"):
        any_api.get(f"/v1/audit/{question}")
    exported = any_api.http.get("/v1/audit/export")
    assert exported.status_code == 200
    assert STORED in exported.text


def test_damaged_data_of_an_unknown_type_is_an_error_all_the_same(api: Api, sqlite_url: str) -> None:
    append(sqlite_url, OF_NOBODY.replace(STORED, "[1"))
    answer = api.http.get("/v1/events")
    assert answer.status_code == 503
    assert "its data is no JSON object" in answer.json()["detail"]


def test_newer_data_of_a_known_type_of_no_workspace_is_read_as_far_as_it_is_known(api: Api, sqlite_url: str) -> None:
    policy = '{"by":"me","policy":{"calendar":[1],"quiet_ms":7},"policy_version":1,"scope":"fleet:x"}'
    position = append(sqlite_url, OF_NOBODY.replace("MoonRisen", "PolicyChanged").replace(STORED, policy))
    [event] = api.get("/v1/events", after=position - 1)["items"]
    assert event["data"] == {"policy": {"quiet_ms": 7}, "policy_version": 1, "scope": "fleet:x"}
