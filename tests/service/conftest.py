"""Real stores for the service, each the test's own; after every test its log is replayed (promise S10)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.ports.store import CoreStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.sqlite import SqliteEventStore
from tests.history import History, TestClock
from tests.memory_store.store import MemoryEventStore
from tests.replay import check_replay


@contextmanager
def checked(store: CoreStore) -> Iterator[CoreStore]:
    """Give the store to a test, and check afterwards that its log folds into its rows."""
    try:
        yield store
        check_replay(store)
    finally:
        store.close()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, clock: TestClock) -> Iterator[CoreStore]:
    """A store whose clock stands still until the test moves it."""
    opened: CoreStore
    if request.param == "memory":
        opened = MemoryEventStore(clock)
    else:
        opened = SqliteEventStore(request.getfixturevalue("sqlite_url"), clock)
    with checked(opened) as given:
        yield given


@pytest.fixture
def sqlite_store(sqlite_url: str, clock: TestClock) -> Iterator[CoreStore]:
    """SQLite on the clock that the test moves, for tests that reach into its file."""
    with checked(SqliteEventStore(sqlite_url, clock)) as given:
        yield given


@pytest.fixture
def postgres_store(app_url: str) -> Iterator[CoreStore]:
    """PostgreSQL, whose clock nobody moves, with the app's privileges and no more."""
    with checked(open_store(app_url)) as given:
        yield given


@pytest.fixture(params=["sqlite_url", "app_url"])
def shared_store(request: pytest.FixtureRequest) -> Iterator[CoreStore]:
    """A database on its usual clock, for several threads at once."""
    with checked(open_store(request.getfixturevalue(request.param))) as given:
        yield given


@pytest.fixture
def history(store: CoreStore, clock: TestClock) -> History:
    """The world of one store, step by step, on the clock that the test moves."""
    return History(store, clock)
