"""Distinct paths of several workspaces in one statement: each range is counted for itself, over an index."""

from __future__ import annotations

from contextlib import closing

import pytest

from bench.statements import recorded
from orchestrator.domain.policy import Action
from orchestrator.ports.store import EventStore
from orchestrator.storage.event_store import SqlEventStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql.path_counts import Range, count_paths
from tests.storage.samples import file_written, log

URLS = ["sqlite_url", "postgres_url"]


def counted(store: EventStore, *ranges: Range) -> list[int]:
    assert isinstance(store, SqlEventStore)
    with store._reading() as sql:
        found = count_paths(sql, ranges)
    return [found[one] for one in ranges]


@pytest.mark.parametrize("url", URLS)
def test_each_range_begins_at_its_own_instant(request: pytest.FixtureRequest, url: str) -> None:
    with closing(open_store(request.getfixturevalue(url))) as store:
        (first, *_) = log(store, file_written("a", "one"), file_written("a", "two"))
        (later, *_) = log(store, file_written("b", "one"), file_written("b", "two"), file_written("c", "two"))
        log(store, file_written("logs", "two", action=Action.RECORD))
        old, new = first.recorded_at, later.recorded_at
        ranges = [
            Range("one", 1, 99, old),
            Range("two", 1, 99, new),
            Range("one", 1, 99, new),
            Range("two", 1, 99, None),
        ]
        assert counted(store, *ranges) == [2, 2, 1, 3]
        assert counted(store, *reversed(ranges)) == [3, 1, 2, 2]
        assert counted(store, Range("two", 1, later.position, old), Range("nobody", 1, 99, None)) == [1, 0]
        assert counted(store) == []


@pytest.mark.parametrize("url", URLS)
def test_no_range_reads_the_log_of_others(request: pytest.FixtureRequest, url: str) -> None:
    with closing(open_store(request.getfixturevalue(url))) as store:
        for number in range(40):
            log(store, *(file_written(f"p{path}", f"ws-{number}") for path in range(50)))
        plan = explained(store, Range("ws-7", 1, 2_000, None), Range("ws-8", 1, 2_000, None))
    assert "ix_events_workspace_position" in plan, plan
    assert "Seq Scan on events" not in plan, plan


def explained(store: EventStore, *ranges: Range) -> str:
    """Return how the database carries a count out."""
    assert isinstance(store, SqlEventStore)
    with store._reading() as sql:
        if sql.dialect == "postgresql":
            sql.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # 2,000 events are read as fast as none
        with recorded() as sent:
            count_paths(sql, ranges)
        statement, given = sent[-1].sql, sent[-1].parameters
        words = "EXPLAIN QUERY PLAN" if sql.dialect == "sqlite" else "EXPLAIN"
        return "\n".join(str(row) for row in sql.connection.exec_driver_sql(f"{words} {statement}", given))
