"""The verification that goes on by itself: in parts, once each, loudly, and never in anybody's way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from orchestrator.audit.periodic_run import PeriodicVerification
from orchestrator.audit.verify.ledger import load, save
from orchestrator.audit.verify.report import Promise
from orchestrator.ports.store import EventStore
from orchestrator.ports.verification import StoredVerification
from orchestrator.storage.opening import open_store
from tests.audit.verify.logs import fill
from tests.history import START, AuditedHistory, TestClock


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest) -> Iterator[AuditedHistory]:
    """A history in each store; PostgreSQL keeps its own time, and its app's privileges."""
    clock = TestClock()
    if request.param == "sqlite":
        store = open_store(request.getfixturevalue("sqlite_url"), clock)
    else:
        store = open_store(request.getfixturevalue("app_url"))
    yield AuditedHistory(store, clock)
    store.close()


def kept(store: EventStore) -> StoredVerification:
    with store.read() as reader:
        found = reader.verification()
    assert found is not None
    return found


def burst(history: AuditedHistory) -> None:
    history.write("a", "b")
    history.queued()
    history.start()
    history.succeed()


def test_each_run_goes_on_where_the_last_one_ended(stored: AuditedHistory) -> None:
    stored.register(quiet="0s", min_interval="0s")
    verifier = PeriodicVerification(stored.store)
    with stored.store.read() as reader:
        assert reader.verification() is None
    stored.write("early")
    first = verifier.run()
    assert first is not None
    assert first.sums.pending == 1
    stored.at(1)
    burst(stored)
    second = verifier.run()

    assert second is not None
    assert second.violations == ()
    assert (second.sums.accepted, second.sums.covered, second.sums.pending) == (3, 3, 0)
    found = kept(stored.store)
    with stored.store.read() as reader:
        assert found.position == reader.last_position()
    assert (found.violations, found.imbalance) == ({}, 0)
    assert load(found.state).last_id


def test_of_two_runs_at_once_one_is_refused(stored: AuditedHistory) -> None:
    stored.register()
    verifier = PeriodicVerification(stored.store)
    verifier.run()
    at = kept(stored.store)
    later = StoredVerification(
        position=at.position + 1, state=at.state, violations={"S1": 2}, imbalance=1, verified_at=START
    )

    assert not stored.store.save_verification(later, expected_position=None)
    assert not stored.store.save_verification(later, expected_position=at.position - 1)
    assert stored.store.save_verification(later, expected_position=at.position)
    assert kept(stored.store) == later


def test_a_run_is_bounded_and_the_next_ones_catch_up(history: AuditedHistory) -> None:
    fill(history)
    verifier = PeriodicVerification(history.store, most=10)
    with history.store.read() as reader:
        last = reader.last_position()
    positions: list[int] = []
    sums: list[int] = []
    while not positions or positions[-1] < last:
        report = verifier.run()
        assert report is not None
        assert report.violations == ()
        positions.append(report.last_position)
        sums.append(report.sums.events)

    assert positions[0] == 10
    assert len(positions) > last // 10
    assert sums[-1] == last


def test_a_violation_is_logged_once_and_counted_for_ever(history: AuditedHistory, sqlite_url: str) -> None:
    fill(history)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("DELETE FROM events WHERE position = 4")
        connection.commit()
    verifier = PeriodicVerification(history.store)
    with capture_logs() as logs:
        verifier.run()
        verifier.run()

    [logged] = [entry for entry in logs if entry["event"] == "verify.violated"]
    assert (logged["log_level"], logged["promise"], logged["positions"]) == ("error", Promise.S2.value, [6])
    found = kept(history.store)
    assert (found.violations, found.imbalance) == ({"S2": 1}, -1)


def test_a_log_that_cannot_be_read_on_is_told_once(history: AuditedHistory, sqlite_url: str) -> None:
    history.register()
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        columns = "id, workspace, type, schema, data, actor, recorded_at"
        at = "2026-11-23T14:02:02.000000Z"
        connection.execute(f"INSERT INTO events ({columns}) VALUES ('evt_x', 'ws', 'Foreign', 1, '{{}}', 'x', '{at}')")
        connection.commit()
    verifier = PeriodicVerification(history.store)
    with capture_logs() as logs:
        verifier.run()
        verifier.run()

    assert [entry["promise"] for entry in logs if entry["event"] == "verify.violated"] == ["log"]
    assert kept(history.store).violations == {"log": 1}


def test_a_log_that_was_put_in_another_one_s_place_is_told(history: AuditedHistory) -> None:
    history.register()
    verifier = PeriodicVerification(history.store)
    verifier.run()
    at = kept(history.store)
    state = load(at.state)
    state.last_id = "evt_of_another_log"
    forged = StoredVerification(
        position=at.position, state=save(state), violations={}, imbalance=0, verified_at=START + timedelta(1)
    )
    assert history.store.save_verification(forged, expected_position=at.position)
    report = verifier.run()

    assert report is not None
    assert [violation.promise for violation in report.violations] == [Promise.LOG]


def test_a_state_of_another_version_begins_anew(history: AuditedHistory) -> None:
    history.register()
    foreign = StoredVerification(position=7, state=b"?", violations={"S1": 3}, imbalance=0, verified_at=START)
    assert history.store.save_verification(foreign, expected_position=None)
    report = PeriodicVerification(history.store).run()

    assert report is not None
    assert report.violations == ()
    assert kept(history.store).position == 2


def test_an_empty_log_is_left_alone(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    assert PeriodicVerification(store).run() is None
    with store.read() as reader:
        assert reader.verification() is None
    store.close()
