"""Questions over many, asked of real history."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from orchestrator.domain.events import ErrorKind, FileWritten
from orchestrator.errors import NotFound
from orchestrator.history import hot_files as hot_files_module
from orchestrator.history.failures import failures
from orchestrator.history.file_counting import count_files
from orchestrator.history.hot_files import hot_files
from orchestrator.history.storms import storms
from orchestrator.history.summary import summary
from orchestrator.ports.inquiries import FILE_COUNTS, Percentiles, Scope
from orchestrator.ports.store import EventFilter
from orchestrator.storage.opening import open_store
from tests.history import START, AuditedHistory, TestClock


@pytest.fixture
def lived(sqlite_url: str) -> Iterator[AuditedHistory]:
    """Two covered bursts, a restart that failed and was given up, one that was cancelled, a shadow one."""
    clock = TestClock()
    store = open_store(sqlite_url, clock)
    history = AuditedHistory(store, clock)
    history.register("ws", quiet="5s", min_interval=0, max_attempts=2, rules=[{"match": "*.log", "action": "record"}])
    history.register("quiet", fleet="blue", quiet="5s", mode="shadow")
    for begin, paths in ((0, ("a", "b", "a", "a.log")), (100, ("a",) * 9)):
        history.at(begin)
        history.write(*paths)
        history.at(begin + 5)
        history.queued()
        history.start()
        history.at(begin + 8)
        history.succeed()
    history.at(200)
    history.write("c")
    history.at(205)
    history.queued()
    history.start()
    history.fail("no host", kind=ErrorKind.TRANSIENT)
    history.at(220)
    history.start()
    history.fail("took too long", kind=ErrorKind.TIMEOUT)
    history.at(300)
    history.write("d", "e", workspace="quiet")
    history.at(305)
    history.queued("quiet")
    history.start("quiet")
    history.at(310)
    history.write("f", workspace="quiet")
    history.at(400)
    history.cancel(history.queued("quiet"), "not now")
    yield history
    store.close()


def test_a_summary_says_what_coalescing_did(lived: AuditedHistory) -> None:
    with lived.store.read() as reader:
        every, mine = summary(reader, Scope()), summary(reader, Scope(workspace="ws"))
        early = summary(reader, Scope(workspace="ws", until=START + timedelta(seconds=50)))
        none = summary(reader, Scope(fleet="green"))
    assert (mine.restarts, mine.by_state, mine.by_cause) == (3, {"gave_up": 1, "succeeded": 2}, {"quiet": 3})
    assert (mine.writes_covered, mine.restarts_started, mine.restarts_avoided) == (12, 3, 9)
    assert (mine.cycles, mine.shadow, mine.complete) == (4, 0, True)
    assert mine.oldest_write_waited.restarts == 2
    assert mine.oldest_write_waited.to_start_ms == Percentiles(p50=5_000, p90=5_000, p99=5_000, max=5_000)
    assert mine.oldest_write_waited.to_success_ms.max == 8_000
    assert mine.failures.failed == {"timeout": 1, "transient": 1}
    assert (every.restarts, every.shadow, every.by_state["cancelled"]) == (5, 1, 1)
    assert (every.writes_covered, every.restarts_avoided) == (14, 10)
    assert (early.restarts, early.writes_covered, early.failures.failed) == (1, 3, {})
    assert (none.restarts, none.restarts_avoided, none.oldest_write_waited.to_start_ms.p50) == (0, 0, None)


def test_storms_come_first(lived: AuditedHistory) -> None:
    with lived.store.read() as reader:
        assert [one.writes for one in storms(reader, Scope(), 2)] == [9, 3]
        assert [one.writes for one in storms(reader, Scope(fleet="blue"), 9)] == [2, 1]
        later = Scope(since=START + timedelta(seconds=150))
        assert [one.writes for one in storms(reader, later, 1)] == [2]


def test_failures_say_why(lived: AuditedHistory) -> None:
    with lived.store.read() as reader:
        found = failures(reader, Scope(workspace="ws"), 2)
        assert failures(reader, Scope(fleet="blue"), 5).newest == []
        assert failures(reader, Scope(fleet="blue"), 5).counts.gave_up == 0
    assert (found.counts.failed, found.counts.gave_up) == ({"timeout": 1, "transient": 1}, 1)
    assert [event.type for event in found.newest] == ["RestartGaveUp", "CycleFailed"]
    assert found.counts.complete


def named(found: hot_files_module.HotFiles) -> list[tuple[str, str, int]]:
    return [(file.workspace, file.path, file.writes) for file in found.files]


def test_hot_files_are_exact_before_during_and_after_counting(
    lived: AuditedHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.history.file_counting.POSITIONS", 7)
    chance = random.Random(3)
    for _ in range(30):
        lived.write(*(chance.choice("abcdefghij") for _ in range(chance.randrange(1, 6))))
        with lived.store.read() as reader:
            most_first = _counted(lived)
            for limit in (1, 3, 100):
                found = hot_files(reader, Scope(workspace="ws"), limit)
                assert named(found) == most_first[:limit]
                assert found.complete
        if chance.random() < 0.5:
            count_files(lived.store, lambda: True)
    with lived.store.read() as reader:
        behind = reader.counters(FILE_COUNTS).position
        before = named(hot_files(reader, Scope(), 50))
        assert 0 < behind < reader.last_position()
    count_files(lived.store)
    with lived.store.read() as reader:
        assert reader.counters(FILE_COUNTS).position == reader.last_position()
        assert named(hot_files(reader, Scope(), 50)) == before
        assert named(hot_files(reader, Scope(fleet="blue"), 1)) == [("quiet", "f", 1)]


def _counted(lived: AuditedHistory) -> list[tuple[str, str, int]]:
    """Return the files of ``ws`` as the log itself says: most writes first, of equals the one written last."""
    counts: Counter[str] = Counter()
    last: dict[str, int] = {}
    with lived.store.read() as reader:
        for event in reader.events(EventFilter(workspace="ws", limit=10_000)):
            if isinstance(event.data, FileWritten):
                counts[event.data.path] += 1
                last[event.data.path] = event.position
    most_first = sorted(counts, key=lambda path: (-counts[path], -last[path]))
    return [("ws", path, counts[path]) for path in most_first]


def test_hot_files_of_a_span_are_counted_in_it(lived: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    span = Scope(since=START + timedelta(seconds=50), until=START + timedelta(seconds=250))
    with lived.store.read() as reader:
        assert named(hot_files(reader, span, 5)) == [("ws", "a", 9), ("ws", "c", 1)]
        monkeypatch.setattr(hot_files_module, "MOST_WRITES", 4)
        cut = hot_files(reader, span, 5)
        assert (named(cut), cut.complete) == ([("ws", "a", 3), ("ws", "c", 1)], False)


def test_an_unknown_workspace_is_said_so(lived: AuditedHistory) -> None:
    scope = Scope(workspace="nobody")
    with lived.store.read() as reader:
        for ask in (
            lambda: summary(reader, scope),
            lambda: storms(reader, scope, 1),
            lambda: failures(reader, scope, 1),
            lambda: hot_files(reader, scope, 1),
        ):
            with pytest.raises(NotFound, match="nobody"):
                ask()
