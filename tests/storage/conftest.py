"""The three stores, each empty and the test's own; and a clock that a test can set."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.ports.store import CoreStore, EventStore
from orchestrator.storage.postgres import PostgresEventStore
from orchestrator.storage.sqlite import SqliteEventStore
from tests.memory_store.store import MemoryEventStore


class SetClock:
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def step(self, seconds: float) -> datetime:
        self.at += timedelta(seconds=seconds)
        return self.at


@pytest.fixture
def set_clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[CoreStore]:
    """Each store in turn, on its usual clock; PostgreSQL with the app's privileges and no more."""
    made = _open(request)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def audited_store(request: pytest.FixtureRequest) -> Iterator[EventStore]:
    """The stores that answer auditors too, in turn."""
    made = _open_database(request)
    yield made
    made.close()


def _open(request: pytest.FixtureRequest) -> CoreStore:
    if request.param == "memory":
        return MemoryEventStore()
    return _open_database(request)


def _open_database(request: pytest.FixtureRequest) -> EventStore:
    if request.param == "sqlite":
        return SqliteEventStore(request.getfixturevalue("sqlite_url"))
    return PostgresEventStore(request.getfixturevalue("app_url"))


@pytest.fixture(params=["memory", "sqlite"])
def clocked_store(request: pytest.FixtureRequest, set_clock: SetClock) -> Iterator[CoreStore]:
    """The stores that have no clock of their own, on one that the test sets."""
    made: CoreStore
    if request.param == "memory":
        made = MemoryEventStore(set_clock)
    else:
        made = SqliteEventStore(request.getfixturevalue("sqlite_url"), set_clock)
    yield made
    made.close()
