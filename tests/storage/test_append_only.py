"""The log refuses to be changed, by whatever statement, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from orchestrator.ports.store import EventFilter
from orchestrator.storage.engines import postgres_engine, sqlite_engine
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import database_url
from tests.storage.samples import file_written, log

INSERTS = (
    "(id, type, schema, data, actor, recorded_at) VALUES ('evt_x', 'FileWritten', 1, '{}', 'me', '2026-11-23T12:00Z')"
)
INSERT_AT = (
    "(position, id, type, schema, data, actor, recorded_at) {} VALUES ({}, '{}', 'FileWritten', 1, '{{}}', 'me', '')"
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A database with two events."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    store = open_store(found)
    log(store, file_written("a", source_id="1"), file_written("b", source_id="2"))
    store.close()
    return found


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """Connections set up as the product sets them up."""
    parsed = database_url(url)
    made = sqlite_engine(parsed) if parsed.get_backend_name() == "sqlite" else postgres_engine(parsed)
    yield made
    made.dispose()


def refused(engine: sa.Engine, *statements: str) -> None:
    """Run statements in one transaction, of which the last must be refused."""
    with engine.connect() as connection:
        for statement in statements[:-1]:
            connection.execute(sa.text(statement))
        with pytest.raises(exc.DBAPIError, match=r"never changed or deleted|must be above the newest"):
            connection.execute(sa.text(statements[-1]))


def paths_left(url: str) -> list[str]:
    store = open_store(url)
    with store.read() as reader:
        left = [getattr(event.data, "path", "") for event in reader.events(EventFilter())]
    store.close()
    return left


def test_update_and_delete_are_refused(url: str, engine: sa.Engine) -> None:
    refused(engine, "UPDATE events SET data = '{}'")
    refused(engine, "UPDATE events SET actor = 'somebody else' WHERE position = 1")
    refused(engine, "DELETE FROM events")
    refused(engine, "DELETE FROM events WHERE position = 2")
    assert paths_left(url) == ["a", "b"]


def test_an_insert_goes_through(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO events {INSERTS}"))
        assert connection.execute(sa.text("SELECT max(position) FROM events")).scalar_one() == 3


@pytest.mark.parametrize(
    "words",
    [
        "INSERT OR REPLACE INTO events " + INSERT_AT.format("", 1, "evt_new"),
        "INSERT INTO events " + INSERT_AT.format("", 2, "evt_new"),
        "INSERT INTO events " + INSERT_AT.format("", -5, "evt_new"),
        "INSERT OR REPLACE INTO events (id, type, schema, data, actor, recorded_at)"
        " SELECT id, type, schema, '{}', actor, recorded_at FROM events WHERE position = 1",
        "REPLACE INTO events SELECT 7, 'evt_new', workspace, version, type, schema, subject, '{}', actor, source,"
        " source_id, correlation_id, causation_id, occurred_at, recorded_at, traceparent FROM events"
        " WHERE position = 2",
        "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
    ],
)
def test_sqlite_refuses_replacing_and_old_positions(sqlite_url: str, words: str) -> None:
    store = open_store(sqlite_url)
    log(store, file_written("a", source_id="1"), file_written("b", source_id="2"))
    store.close()
    engine = sqlite_engine(database_url(sqlite_url))
    refused(engine, words)
    engine.dispose()
    assert paths_left(sqlite_url) == ["a", "b"]


def test_postgres_refuses_truncate_and_replica_mode(postgres_url: str) -> None:
    store = open_store(postgres_url)
    log(store, file_written("a"), file_written("b"))
    store.close()
    engine = postgres_engine(database_url(postgres_url))
    refused(engine, "TRUNCATE events")
    refused(engine, "TRUNCATE events CASCADE")
    for statement in ("UPDATE events SET data = '{}'", "DELETE FROM events", "TRUNCATE events"):
        refused(engine, "SET session_replication_role = replica", statement)
    engine.dispose()
    assert paths_left(postgres_url) == ["a", "b"]


def test_postgres_refuses_a_chosen_position(postgres_url: str) -> None:
    engine = postgres_engine(database_url(postgres_url))
    with engine.connect() as connection, pytest.raises(exc.ProgrammingError, match="non-DEFAULT value"):
        connection.execute(sa.text("INSERT INTO events (position) VALUES (7)"))
    engine.dispose()
