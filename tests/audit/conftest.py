from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.storage.opening import open_store
from tests.history import AuditedHistory, TestClock


@pytest.fixture
def history(sqlite_url: str) -> Iterator[AuditedHistory]:
    """An empty SQLite store whose clock the test moves."""
    clock = TestClock()
    store = open_store(sqlite_url, clock)
    yield AuditedHistory(store, clock)
    store.close()
