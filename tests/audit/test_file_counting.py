"""Counting the writes of each file, from time to time, behind the log."""

from __future__ import annotations

import pytest

from orchestrator.history.file_counting import file_counting
from orchestrator.ports.inquiries import FILE_COUNTS, Scope
from orchestrator.storage.opening import open_store
from tests.history import AuditedHistory


def test_the_counts_of_files_follow_the_log(history: AuditedHistory) -> None:
    history.register()
    history.write("a", "b", "a")
    counting = file_counting(history.store)
    counting.run()
    history.write("a")
    counting.run()
    counting.run()
    with history.store.read() as reader:
        assert reader.counters(FILE_COUNTS).position == reader.last_position()
        assert [(file.path, file.writes) for file in reader.kept_files(Scope(), limit=5)] == [("a", 3), ("b", 1)]


def test_a_stop_ends_a_count_between_two_of_its_steps(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.history.file_counting.POSITIONS", 2)
    history.register()
    history.write(*[f"p{number}" for number in range(10)])
    counting = file_counting(history.store)
    counting.stop()
    counting.run()
    with history.store.read() as reader:
        assert reader.counters(FILE_COUNTS).position == 2


def test_a_database_that_is_away_is_one_line(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(sqlite_url.replace("orchestrator.db", "nowhere/orchestrator.db"))
    file_counting(store).run()
    [said] = capsys.readouterr().out.strip().splitlines()
    assert "kept.skipped" in said
    store.close()
