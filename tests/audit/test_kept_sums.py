"""The sums behind the log say what the log says, wherever they stand, whatever came since, in any order of steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from bench.statements import asked
from orchestrator.domain import events as ev
from orchestrator.errors import Conflict
from orchestrator.history import summary as summary_module
from orchestrator.history.failures import count_failures
from orchestrator.history.sum_keeping import SumKeeping, keep_sums
from orchestrator.history.summary import Summary, summary
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import Backlog, EventFilter, Reader
from orchestrator.ports.sums import SUMS, Activity, Of, SumKind
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql import backlog as backlog_module
from orchestrator.storage.sql import kept_sums
from tests.history import START, AuditedHistory, TestClock

WORKSPACES = ("ws", "other", "third")
FLEETS = ("blue", "green")
STATEMENTS_MOST = 6


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def lived(request: pytest.FixtureRequest) -> Iterator[AuditedHistory]:
    """A history over both databases."""
    clock = TestClock()
    store = open_store(request.getfixturevalue(request.param), clock)
    yield AuditedHistory(store, clock)
    store.close()


def test_kept_sums_say_what_the_rows_say_after_every_step(
    lived: AuditedHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.history.sum_keeping._POSITIONS", 5)
    chance = random.Random(11)
    for name in WORKSPACES:
        register(lived, name, FLEETS[0])
    keep_sums(lived.store)
    for _ in range(60):
        one_step(lived, chance)
        if chance.random() < 0.4:
            keep_sums(lived.store, lambda: True)  # one piece: it stays behind
        with lived.store.read() as reader:
            for scope in scopes(lived, chance):
                assert without_waits(summary(reader, scope)) == without_waits(from_rows(reader, scope, monkeypatch)), scope
            assert waits(reader) == waits_passed_over(reader, monkeypatch)
    keep_sums(lived.store)
    with lived.store.read() as reader:
        assert reader.sums_position() == reader.last_position()
        for kind in SumKind:
            assert kept_activity(reader, kind) == activity_of_the_log(reader)[kind]
