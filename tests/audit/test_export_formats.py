"""Exports of events and restarts as NDJSON, CSV and JSON: the same rows, whole, in order, from a bounded scope."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.errors import NotFound
from orchestrator.history import export as export_module
from orchestrator.history.export import Export, Subject, export, exported
from orchestrator.history.export_formats import Format
from orchestrator.ports.inquiries import Scope
from orchestrator.storage.opening import open_store
from tests.history import START, AuditedHistory, TestClock

HOSTILE = ['=cmd|" /C calc"!A1', "+1", "-1", "@sum(a1)", "\ttab", "'quoted", 'say "hi", twice', "two\r\nlines", "é,ü"]


@pytest.fixture(params=["sqlite", "postgres"])
def lived(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditedHistory]:
    """Restarts of two workspaces in two fleets, some under hostile names; three rows a page."""
    monkeypatch.setattr(export_module, "_PAGE", 3)
    clock = TestClock()
    store = open_store(request.getfixturevalue(f"{request.param}_url"), clock)
    history = AuditedHistory(store, clock)
    history.register("a", fleet="blue", quiet=0, min_interval=0)
    history.register("b", quiet=0, min_interval=0, max_attempts=1)
    for number, text in enumerate(HOSTILE):
        workspace = "ab"[number % 2]
        history.at(number + 1)
        history.write(text, workspace=workspace, actor=text)
        history.queued(workspace)
        history.start(workspace)
        if workspace == "a":
            history.succeed(workspace)
        else:
            history.fail(text, workspace)
    yield history
    store.close()


def text_of(history: AuditedHistory, wanted: Export) -> tuple[str, int]:
    pieces = list(exported(history.store, wanted))
    return b"".join(piece for piece, _ in pieces).decode(), sum(rows for _, rows in pieces)


def objects(history: AuditedHistory, **wanted: Any) -> list[dict[str, Any]]:
    text, rows = text_of(history, Export(**wanted))
    found = [json.loads(line) for line in text.splitlines()]
    assert len(found) == rows
    return found


def uncelled(cell: str) -> str:
    """Return the value of a cell, as the documentation says it is had back."""
    return cell.removeprefix("'")


@pytest.mark.parametrize("of", Subject)
def test_all_formats_hold_the_same_rows(lived: AuditedHistory, of: Subject) -> None:
    lines = objects(lived, of=of)
    array, rows = text_of(lived, Export(of=of, format=Format.JSON))
    assert json.loads(array) == lines
    assert rows == len(lines) > 3
    table, rows = text_of(lived, Export(of=of, format=Format.CSV))
    header, *cells = csv.reader(io.StringIO(table, newline=""), strict=True)
    assert rows == len(cells) == len(lines)
    assert header == list(lines[0])
    for row, line in zip(cells, lines, strict=True):
        for cell, value in zip(row, line.values(), strict=True):
            if isinstance(value, str):
                assert uncelled(cell) == value
            else:
                assert cell == ("" if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def test_csv_is_safe_in_a_spreadsheet_and_as_the_rfc_has_it(lived: AuditedHistory) -> None:
    table, _ = text_of(lived, Export(format=Format.CSV))
    assert table.startswith(",".join(StoredEvent.__struct_fields__) + "\r\n")
    assert table.endswith("\r\n")
    _, *rows = csv.reader(io.StringIO(table, newline=""), strict=True)
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    actors = {row[StoredEvent.__struct_fields__.index("actor")] for row in rows}
    assert {'\'=cmd|" /C calc"!A1', "'@sum(a1)", "''quoted", 'say "hi", twice', "two\r\nlines"} <= actors


def test_ndjson_is_the_canonical_export(lived: AuditedHistory) -> None:
    written: list[str] = []
    export(lived.store, written.append)
    assert text_of(lived, Export())[0] == "".join(written)


def test_nothing_is_a_whole_file_too(lived: AuditedHistory) -> None:
    assert text_of(lived, Export(after=10_000)) == ("", 0)
    assert text_of(lived, Export(format=Format.JSON, after=10_000)) == ("[]\n", 0)
    table, rows = text_of(lived, Export(of=Subject.RESTARTS, format=Format.CSV, after=10_000))
    assert (table.count("\r\n"), rows) == (1, 0)


def test_the_scope_bounds_it(lived: AuditedHistory) -> None:
    events = objects(lived)
    positions = [event["position"] for event in events]
    assert positions == sorted(positions)
    assert [event["position"] for event in objects(lived, after=positions[4])] == positions[5:]
    mine = [event for event in events if event["workspace"] == "a"]
    assert objects(lived, scope=Scope(workspace="a")) == mine
    assert objects(lived, scope=Scope(fleet="blue")) == mine
    restarts = objects(lived, of=Subject.RESTARTS)
    queued = [restart["queued_position"] for restart in restarts]
    assert queued == sorted(queued)
    assert {restart["workspace"] for restart in restarts} == {"a", "b"}
    blue = [restart for restart in restarts if restart["fleet"] == "blue"]
    assert objects(lived, of=Subject.RESTARTS, scope=Scope(fleet="blue")) == blue
    assert objects(lived, of=Subject.RESTARTS, after=queued[3]) == restarts[4:]
    with pytest.raises(NotFound, match="nobody"):
        exported(lived.store, Export(scope=Scope(workspace="nobody")))


def test_a_span_of_time_bounds_it(history: AuditedHistory) -> None:
    for seconds in (0, 10, 20, 30):
        history.at(seconds)
        history.register("ws", quiet=seconds, min_interval=0)
        history.write(str(seconds))
        if seconds == 0:
            history.queued()

    def inside(since: float | None, until: float | None, of: Subject = Subject.EVENTS) -> list[str]:
        first, last = (None if end is None else START + timedelta(seconds=end) for end in (since, until))
        rows = objects(history, of=of, scope=Scope(since=first, until=last))
        return [str(row["id"] if of is Subject.RESTARTS else row["data"].get("path")) for row in rows if _counts(row)]

    assert inside(None, None) == ["0", "10", "20", "30"]
    assert inside(10, 30) == ["10", "20"]
    assert inside(10.000001, 30.000001) == ["20", "30"]
    assert inside(31, None) == inside(None, 0) == []
    assert len(inside(0, 1, Subject.RESTARTS)) == 1
    assert inside(1, None, Subject.RESTARTS) == []


def _counts(row: dict[str, Any]) -> bool:
    return bool(row.get("type", "FileWritten") == "FileWritten")


def test_memory_stays_flat(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "_PAGE", 100)
    history.register("ws")
    for _ in range(16):
        history.write(*[f"{number:0200}" for number in range(500)])
    for format_ in Format:
        size, peaks = 0, []
        tracemalloc.start()
        try:
            for piece, _ in exported(history.store, Export(format=format_)):
                size += len(piece)
                peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert size > 3_000_000
        assert max(peaks) < size / 2  # the process' other threads have their part in it
