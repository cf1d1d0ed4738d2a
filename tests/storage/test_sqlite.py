"""What only SQLite can do to us: files that are missing, locked, full or no database; plans that read whole tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bench.statements import heard
from orchestrator.domain.restart_projection import RestartState
from orchestrator.errors import MigrationsPending, StorageUnavailable
from orchestrator.ports.store import EventFilter, EventStore, Reader, RestartFilter
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.storage.engines import SQLITE_CONNECTIONS
from orchestrator.storage.opening import open_store
from orchestrator.storage.sqlite import SqliteEventStore
from orchestrator.storage.urls import database_url
from tests.storage.samples import file_written, log


@pytest.fixture
def store(sqlite_url: str) -> Iterator[SqliteEventStore]:
    made = SqliteEventStore(sqlite_url, busy_timeout_ms=50)
    yield made
    made.close()


def test_connections_are_durable_and_strict(store: SqliteEventStore, sqlite_url: str) -> None:
    seen: dict[str, Any] = {}

    def look(connection: Any, record: object, proxy: object) -> None:
        for pragma in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "busy_timeout"):
            seen[pragma] = connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    with listening(sa.Pool, "checkout", look):
        log(store, file_written())
    assert seen == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "busy_timeout": 50,
    }


@contextmanager
def listening(target: Any, name: str, function: Callable[..., None]) -> Iterator[None]:
    sa.event.listen(target, name, function)
    yield
    sa.event.remove(target, name, function)


def test_writers_begin_immediately_and_readers_do_not(store: SqliteEventStore) -> None:
    said: list[str] = []

    def trace(connection: Any, *_: object) -> None:
        connection.set_trace_callback(said.append)

    with listening(sa.pool.Pool, "checkout", trace):
        log(store, file_written())
        store.ticked()
        with store.read() as reader:
            reader.last_position()
    said = [statement for statement in said if statement.startswith("BEGIN")]
    assert said == ["BEGIN IMMEDIATE", "BEGIN IMMEDIATE", "BEGIN DEFERRED"]


def test_another_process_that_writes_for_too_long(store: SqliteEventStore, sqlite_url: str) -> None:
    path = database_url(sqlite_url).database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="locked"):
            log(store, file_written())
        with store.read() as reader:
            assert reader.last_position() == 0
    log(store, file_written())


def test_leases_are_renewed_while_readers_hold_every_connection(store: SqliteEventStore) -> None:
    with ExitStack() as busy:
        for _ in range(SQLITE_CONNECTIONS):
            busy.enter_context(store.read()).last_position()
        assert store.renew_leases({"ws": (1, 1_000)}).kept == set()


def test_a_full_disk(sqlite_url: str) -> None:
    def limit(connection: Any, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size where that is more

    store = SqliteEventStore(sqlite_url)
    with listening(sa.Engine, "connect", limit):
        with pytest.raises(StorageUnavailable, match="full"):
            log(store, *(file_written("x" * 4_000) for _ in range(50)))
        with store.read() as reader:
            assert reader.last_position() == 0
    store.close()


def test_a_file_that_may_only_be_read(sqlite_url: str) -> None:
    path = database_url(sqlite_url).database
    store = open_store(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StorageUnavailable, match="readonly"):
        log(store, file_written())
    store.close()


def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("certainly not a database, but long enough to look at" * 100)
    for name in ("text.db", "no/such/folder/a.db"):
        store = open_store(f"sqlite:///{tmp_path / name}")
        for call in (store.check, store.ticked, lambda store=store: log(store, file_written())):
            with pytest.raises(StorageUnavailable):
                call()
        store.close()


def test_an_empty_file_wants_migrations(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/empty.db")
    for call in (store.check, store.ticked, lambda: log(store, file_written())):
        with pytest.raises(MigrationsPending):
            call()
    store.close()


def test_what_was_committed_is_there_after_reopening(sqlite_url: str) -> None:
    for expected in (1, 2):
        store = open_store(sqlite_url)
        assert log(store, file_written())[0].position == expected
        store.close()


READS: dict[str, Callable[[Reader], object]] = {
    "workspace": lambda reader: reader.workspace("ws"),
    "workspaces": lambda reader: reader.workspaces(WorkspaceFilter()),
    "workspaces of a fleet": lambda reader: reader.workspaces(WorkspaceFilter(fleet="blue")),
    "event": lambda reader: reader.event("evt_1"),
    "events": lambda reader: reader.events(EventFilter(after=3)),
    "events of a workspace": lambda reader: reader.events(EventFilter(workspace="ws")),
    "events of a type": lambda reader: reader.events(EventFilter(types=["RestartGaveUp"])),
    "last position": lambda reader: reader.last_position(),
    "restart": lambda reader: reader.restart("rst_1"),
    "restarts": lambda reader: reader.restarts(RestartFilter()),
    "restarts of a workspace": lambda reader: reader.restarts(RestartFilter(workspace="ws", before=9)),
    "restarts of a fleet": lambda reader: reader.restarts(RestartFilter(fleet="blue")),
    "restarts in a state": lambda reader: reader.restarts(RestartFilter(state=RestartState.GAVE_UP)),
    "restarts of a path": lambda reader: reader.restarts(RestartFilter(workspace="ws", path="a")),
    "restart holding": lambda reader: reader.restart_holding("ws", 1),
    "restarts holding": lambda reader: reader.restarts_holding([1, 2]),
    "events by id": lambda reader: reader.events_by_id(["evt_1", "evt_2"]),
    "waived": lambda reader: reader.waived("ws", 1),
    "due": lambda reader: reader.due_workspaces(9),
    "ready": lambda reader: reader.ready_workspaces(9),
    "next": lambda reader: reader.next_instant(),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_goes_through_an_index_and_sorts_nothing_of_the_log(store: SqliteEventStore, name: str) -> None:
    with store.read() as reader:
        plan = plan_of(lambda: READS[name](reader))
    whole = [
        step for step in plan if step.startswith("SCAN") and step.split()[1] in ("events", "restarts", "workspaces")
    ]
    # A page of all restarts or workspaces is a walk along an index that stops at the limit.
    assert [step for step in whole if "USING" not in step] == []
    merged = ("workspaces", "workspaces of a fleet", "restarts in a state")  # what a page's ranges gave, in order
    if name not in ("due", "restarts of a path", *merged):  # three short lists, merged
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan


SCANS = [["SCAN", "events"], ["SCAN", "restarts"], ["SCAN", "workspaces"], ["SCAN", "idempotency_keys"]]


def test_a_transactions_lookups_go_through_an_index(store: EventStore) -> None:
    with store.write() as transaction:
        for look in (
            lambda: transaction.by_source([("editor", "1"), ("editor", "2"), ("me", "1")]),
            lambda: transaction.count_paths("ws", 1, 9, None),
            transaction.last_clock_regression_at,
            lambda: transaction.running("blue"),
            lambda: transaction.answer("me", "key"),
        ):
            # `leases` may be read whole: it holds the open cycles and nothing else.
            grown = [step for step in plan_of(look) if step.split()[:2] in SCANS and "USING" not in step]
            assert grown == []


def plan_of(look: Callable[[], object]) -> list[str]:
    """Return SQLite's plan of every statement that ``look`` runs."""
    plan: list[str] = []

    def explain(connection: sa.Connection, statement: str, parameters: Any) -> None:
        raw: Any = connection.connection.driver_connection
        rows = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plan.extend(row[3] for row in rows)

    with heard(explain):
        look()
    assert plan
    return plan
