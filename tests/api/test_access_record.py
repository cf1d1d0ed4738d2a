"""The record of access: what was refused, what keys have read, who was given what; kept while the database is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.errors import StorageUnavailable
from orchestrator.ports.store import EventFilter
from orchestrator.service.access_record import AccessRecord
from orchestrator.storage.opening import open_store
from tests.api.keyring import Keyring, keyed
from tests.sent_statements import statements


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.put_workspace()
        yield found


def record_of(ring: Keyring) -> AccessRecord:
    record: AccessRecord = ring.api.server.app.state.access_record
    return record


def said(event: StoredEvent) -> str:
    return bytes(event.data).decode()


def events(store: Any, *types: str) -> list[StoredEvent]:
    with store.read() as reader:
        found: list[StoredEvent] = reader.stored_events(EventFilter(types=types, limit=1_000))
    return found


def test_refusals_and_reads_are_sums(ring: Keyring) -> None:
    header = ring.header("reader", "writer", "writes@fleet=none")
    for number in range(5):
        assert ring.api.http.get("/v1/workspaces", headers=header).status_code == 200
        assert ring.api.http.get(f"/v1/restarts/rst_{number}", headers=header).status_code == 404
        assert ring.api.http.post("/v1/keys", json={}, headers=header).status_code == 403
        assert ring.api.http.get("/v1/keys").status_code == 401
    store = ring.api.services.store
    assert events(store, "AccessDenied", "ReadsCounted") == [], "summed first"
    record_of(ring).flush()
    denied = {event.actor: said(event) for event in events(store, "AccessDenied")}
    assert set(denied) == {"key:reader", "unauthenticated"}
    assert all('"count":5' in text for text in denied.values()), denied
    assert '"needs":"keys"' in denied["key:reader"]
    (reads,) = events(store, "ReadsCounted")
    assert reads.actor == "key:reader"
    assert '"GET /v1/restarts/{restart}":5' in said(reads)
    assert '"GET /v1/workspaces":5' in said(reads)
    record_of(ring).flush()
    assert len(events(store, "AccessDenied", "ReadsCounted")) == 3, "nothing twice"


def test_what_is_summed_is_written_at_the_stop(sqlite_url: str, tmp_path: Path) -> None:
    with keyed(sqlite_url, tmp_path) as ring:
        assert ring.api.http.get("/v1/keys").status_code == 401
    store = open_store(sqlite_url)
    assert [event.actor for event in events(store, "AccessDenied")] == ["unauthenticated"]
    store.close()


def test_sums_are_kept_while_the_database_is_away(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ring.api.http.get("/v1/keys").status_code == 401
    store = ring.api.services.store
    with monkeypatch.context() as away:

        def refuse(*_: Any, **__: Any) -> Any:
            raise StorageUnavailable("away")

        away.setattr(store, "commit", refuse)
        with pytest.raises(StorageUnavailable):
            record_of(ring).flush()
        answer = ring.api.http.get("/v1/audit/export", headers=ring.owner)
        assert answer.status_code == 503, "nothing is given that is not recorded"
    assert ring.api.http.get("/v1/keys").status_code == 401
    record_of(ring).flush()
    (denied,) = events(store, "AccessDenied")
    assert '"count":2' in said(denied)


def test_who_is_given_data_is_recorded_before_and_keys_as_they_change(ring: Keyring) -> None:
    header, store = ring.header("auditor", "auditor"), ring.api.services.store
    assert ring.api.http.get("/v1/audit/export?workspace=ws", headers=header).status_code == 200
    (exported,) = events(store, "DataExported")
    assert exported.actor == "key:auditor"
    assert '"workspace":"ws"' in said(exported)
    assert ring.api.http.get("/v1/keys", headers=ring.owner).status_code == 200
    assert [event.actor.partition(":")[0] for event in events(store, "DataExported")] == ["key", "user"]
    ring.revoke("auditor")
    kinds = [(event.type, event.actor.partition(":")[0]) for event in events(store, "KeyCreated", "KeyRevoked")]
    assert kinds == [("KeyCreated", "user"), ("KeyRevoked", "user")]
    assert ring.api.http.get("/v1/audit/export", headers=header).status_code == 401
    assert len(events(store, "DataExported")) == 2


def test_a_key_costs_a_write_no_statement(ring: Keyring) -> None:
    """Its scopes are at hand: the keys are read twice a second, whatever is written."""
    header = ring.header("writer", "writer")
    sent: dict[str, list[str]] = {}
    for name, headers in (("key", header), ("none", {})):
        ring.api.http.post("/v1/workspaces/ws/writes", json={"path": "a"}, headers=headers)
        ring.access.book.look(again=True)
        with statements() as found:
            answer = ring.api.http.post("/v1/workspaces/ws/writes", json={"path": "a"}, headers=headers)
        assert answer.status_code == 202
        sent[name] = [statement for statement in found if "access_keys" not in statement]
        assert len(found) - len(sent[name]) <= 2, "at most a look, if half a second has gone by"
    assert len(sent["key"]) == len(sent["none"]), sent
