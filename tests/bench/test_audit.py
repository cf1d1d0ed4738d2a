"""The benchmark of the audit on a small log, which is one that the product could have written; all is measured."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench import audit
from bench.__main__ import main
from bench.log_files import Wanted, generate, sqlite_file
from bench.page import page
from bench.ratios import Bar, Ratio, table
from orchestrator.audit.verify.lines import read_lines
from orchestrator.audit.verify.run import Verification
from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.history.export import export
from orchestrator.history.replay import replay
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store

EVENTS = 4_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the log of this module is kept."""
    return tmp_path_factory.mktemp("bench")


def of(folder: Path) -> Path:
    return sqlite_file(Wanted(count=EVENTS, folder=folder, fresh=False, say=lambda text: None))


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_generated_log_replays(folder: Path) -> None:
    with closing(open_store(f"sqlite:///{of(folder)}")) as store:
        report = replay(store)

    assert report.differences == ()
    assert EVENTS <= report.events < EVENTS + 100
    assert report.restarts > EVENTS / 20


def test_generated_log_keeps_every_promise(folder: Path, tmp_path: Path) -> None:
    exported = tmp_path / "export.ndjson"
    with closing(open_store(f"sqlite:///{of(folder)}")) as store, exported.open("w", encoding="utf-8") as file:
        export(store, file.write)
    verification = Verification(tick_us=1_000_000, slots=1_000)

    with exported.open("rb") as lines:
        verification.read(read_lines(lines))

    assert verification.report("export").violations == ()


def test_generated_log_has_what_logs_have(folder: Path) -> None:
    types = {str(row[0]) for row in rows(of(folder), "SELECT DISTINCT type FROM events")}
    needed = {"FileWritten", "RestartQueued", "CycleSucceeded", "CycleFailed", "CycleAbandoned", "RestartRequested"}

    assert needed <= types <= EVENT_TYPES.keys()
    reasons = "SELECT DISTINCT json_extract(data, '$.reason') FROM events WHERE type = 'CycleAbandoned'"
    assert ("lease_expired",) in rows(of(folder), reasons)


def test_generator_is_deterministic(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.db"
    upgrade(f"sqlite:///{again}")
    generate(again, EVENTS)

    def digest(path: Path) -> str:
        found = rows(path, "SELECT * FROM events ORDER BY position") + rows(
            path, "SELECT * FROM workspaces ORDER BY id"
        )
        return hashlib.sha256(repr(found).encode()).hexdigest()

    assert digest(of(folder)) == digest(again)


def test_everything_is_measured(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of(folder)
    options = ["--database", "sqlite", "--events", str(EVENTS), "--folder", str(folder), "--rounds", "1"]
    figures = tmp_path / "audit.json"

    assert main(["audit", *options, "--passes", "1", "--json", "--write-json", str(figures)]) == 0

    measured = json.loads(capsys.readouterr().out)
    found = {item["what"]: item for item in measured["ratios"]}
    assert {
        "why did this restart happen",
        "what became of this write",
        "replay",
        "export",
        "verify a file",
    } <= found.keys()
    assert all(item["ours_s"] > 0 and item["other_s"] > 0 for item in found.values())
    written = {item["what"]: item["ratio"] for item in json.loads(figures.read_text())["figures"]}
    assert written == {name: pytest.approx(item["ratio"], abs=0.001) for name, item in found.items()}
    assert "a log of 4,000 events" in page({"audit": json.loads(figures.read_text())})


def test_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert audit.SUMMARY in capsys.readouterr().out


def test_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fast"]) == 2
    assert "'fast'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bar", "limit", "ratio", "met"),
    [
        (Bar.COST_AT_MOST, 6.0, 4.0, True),
        (Bar.COST_AT_MOST, 3.9, 4.0, False),
        (Bar.SPEED_AT_LEAST, 0.25, 0.25, True),
        (Bar.SPEED_AT_LEAST, 0.26, 0.25, False),
    ],
)
def test_bars(bar: Bar, limit: float, ratio: float, *, met: bool) -> None:
    measured = Ratio(what="x", database="sqlite", ours_s=4.0, against="y", other_s=1.0, bar=bar, limit=limit, note="n")

    assert (measured.ratio, measured.met) == (ratio, met)
    assert ("MISSED" in table([measured])) is not met
