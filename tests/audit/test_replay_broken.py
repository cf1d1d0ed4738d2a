"""Replay of what somebody has damaged: every column of a workspace is compared, what cannot be read is the finding."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from orchestrator.history.replay import ReplayReport, replay
from orchestrator.ports.store import EventStore
from orchestrator.storage.opening import open_store
from tests.history import AuditedHistory, TestClock


@pytest.fixture
def lived(sqlite_url: str) -> Iterator[EventStore]:
    """Six events: a policy, a registration, two writes at positions 3 and 4, a queued restart, a start."""
    clock = TestClock()
    store = open_store(sqlite_url, clock)
    history = AuditedHistory(store, clock)
    history.register("ws", fleet="blue")
    history.write("a", "b")
    history.at(15)
    history.queued()
    history.start()
    yield store
    store.close()


def edit(url: str, words: str) -> None:
    """Change the database as somebody does who has the file in hand."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.execute("DROP TRIGGER events_refuse_update")
        assert database.execute(words).rowcount == 1
        database.commit()


def replayed(store: EventStore) -> ReplayReport:
    """Replay, and check that the report has exactly one difference."""
    report = replay(store)
    assert len(report.differences) == 1
    return report


DAMAGED_STATES = (
    "folded_state || ' '",
    "replace(folded_state, '{\"', '{\"more\":1,\"')",
    "'[]'",
    "x'ff00'",
)


@pytest.mark.parametrize(
    "change",
    [
        *(
            "fleet = 'red'",
            "version = version + 1",
            "phase = 'idle'",
            "pending_first_at = NULL",
            "pending_last_at = NULL",
        ),
        *("pending_count = pending_count + 1", "pending_requests = 1", "pending_requests = 1.5", "fence = fence + 1"),
        *("ready_at = '2026-11-23T14:02:16.000000Z'", "held_until = '2027-01-01T00:00:00.000000Z'", "due_at = 'soon'"),
        *(f"folded_state = {damaged}" for damaged in DAMAGED_STATES),
    ],
)
def test_every_column_of_a_workspace_is_compared(lived: EventStore, sqlite_url: str, change: str) -> None:
    edit(sqlite_url, f"UPDATE workspaces SET {change}")
    report = replayed(lived)
    [found] = report.differences
    assert (found.table, found.id, report.broken) == ("workspaces", "ws", None)
    assert found.stored != found.replayed


def test_a_renewed_lease_is_the_rows_own(lived: EventStore) -> None:
    assert lived.renew_leases({"ws": (1, 60_000)}).kept == {"ws"}
    assert replay(lived).differences == ()


@pytest.mark.parametrize(
    ("change", "table", "id"),
    [
        ("restarts SET cause = 'whim'", "restarts", "rst_"),
        ("restarts SET writes = 'many'", "restarts", "rst_"),
        ("restarts SET due_at = 'soon'", "restarts", "rst_"),
        ("policies SET policy = '{'", "policies", "settings"),
    ],
)
def test_a_row_that_cannot_be_read_is_the_finding(
    lived: EventStore, sqlite_url: str, change: str, table: str, id: str
) -> None:
    edit(sqlite_url, f"UPDATE {change}")
    report = replayed(lived)
    [found] = report.differences
    assert found.table == table
    assert found.id.startswith(id)
    assert report.broken == found.stored


@pytest.mark.parametrize(
    ("change", "why"),
    [("error = x'ff00'", "holds bytes where text or a number belongs"), ("writes = 9e999", "cannot be read")],
)
def test_a_restart_that_sqlite_cannot_spell_is_the_finding(
    lived: EventStore, sqlite_url: str, change: str, why: str
) -> None:
    edit(sqlite_url, f"UPDATE restarts SET {change}")
    assert why in (replayed(lived).broken or "")


def test_an_instant_that_python_does_not_have_is_the_finding(postgres_url: str) -> None:
    store = open_store(postgres_url)
    AuditedHistory(store, TestClock()).register("ws")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as database:
        database.execute("UPDATE workspaces SET due_at = 'infinity'")
    report = replayed(store)
    assert report.events == 2
    assert report.broken is not None
    assert "holds an instant that no clock gave" in report.broken
    store.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("type = 'FileMoved'", "its type 'FileMoved' is not one that this version knows"),
        ("schema = 0", "there is no schema 0 of FileWritten"),
        ("schema = 'one'", "there is no schema 'one' of FileWritten"),
        ("data = '{'", "its data is no FileWritten of schema 1"),
        ("data = replace(data, 'restart', 'explode')", "Invalid enum value 'explode'"),
        ("data = replace(data, '{', '{\"quiet_ms\":1000000000000000000,')", "Python int too large|out of range"),
        ("recorded_at = 'yesterday'", "Invalid isoformat string: 'yesterday'"),
    ],
)
def test_an_event_that_cannot_be_folded_is_named_with_its_position(
    lived: EventStore, sqlite_url: str, change: str, why: str
) -> None:
    edit(sqlite_url, f"UPDATE events SET {change} WHERE position = 4")
    report = replayed(lived)
    [found] = report.differences
    assert found.table == "events"
    assert found.id.endswith(" at position 4")
    assert report.events == 3
    assert report.broken is not None
    assert re.search(why, report.broken)
