"""The published page: every figure is a run's own, sums are sums, and what is missing is said."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.__main__ import Report as FuzzReport
from tests.proof.__main__ import FIGURES, PAGE, main
from tests.proof.page import page
from tests.proof.runs import read_runs
from tests.simulation.campaign import run_seeds

CHAOS: dict[str, Any] = {
    **{
        "commit": "c0ffee",
        "date": "2026-11-22",
        "seed": 7,
        "minutes": 2.0,
        "rounds": 9,
        "operations": 50,
        "acknowledged": 40,
        "lost": 0,
    },
    **{"doubled": 0, "unknown": 10, "unknown_stored": 3, "kills": {"api": {"kill -9": 2}, "beat": {"beat.fire": 1}}},
    **{"crash_points_hit": ["beat.fire"], "crash_points": 18, "faults": {"api killed": 2}, "swallowed_answers": 4},
    **{"staleness_s": 1.25, "staleness_bound_s": 7.3, "not_run": ["RabbitMQ: it is not here"], "violations": []},
}
MUTANTS: list[dict[str, Any]] = [
    {
        "name": "a",
        "breaks": "x",
        "equivalent": None,
        "found": True,
        "promises": {"S3": 2},
        "median_seeds": 4.5,
        "seeds": 9,
    },
    {"name": "b", "breaks": "y", "equivalent": None, "found": False, "promises": {}, "median_seeds": None, "seeds": 9},
    {
        "name": "c",
        "breaks": "z",
        "equivalent": "Why.",
        "found": False,
        "promises": {},
        "median_seeds": None,
        "seeds": 9,
    },
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Figures of two runs of the simulator, which are real, and of the other lanes."""
    for first in (5, 6):
        about = {"commit": "c0ffee", "date": "2026-11-21", "first_seed": first, "last_seed": first}
        put(tmp_path / f"sim-{first}.json", about | run_seeds(range(first, first + 1)).plain())
    put(tmp_path / "mutants.json", MUTANTS)
    put(tmp_path / "chaos-7.json", CHAOS)
    put(
        tmp_path / "fuzz-7.json",
        asdict(FuzzReport(commit="c0ffee", date="2026-11-23", seed=7, minutes=1, executions={"write": 1_200})),
    )
    return tmp_path


def put(file: Path, value: object) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


def written(folder: Path) -> str:
    output = folder / "proof.md"
    assert main(["--from", str(folder), "--output", str(output)]) == 0
    return output.read_text(encoding="utf-8")


def test_runs_are_added_up_and_named(folder: Path) -> None:
    text = written(folder)
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("sim-*.json")]
    assert "commit `c0ffee`, seeds 5 to 6." in text
    assert "Runs up to 2026-11-23." in text
    assert "| seeds | 2 |" in text
    assert f"| events | {sum(run['events'] for run in runs):,} |" in text
    assert "| promises broken | 0 |" in text
    assert "1 of 2 found, 1 equivalent" in text
    assert "| `b` | y | NO, in 9 seeds | - | - |" in text
    assert "| processes killed | 3 (api 2, beat 1) |" in text
    assert "- Not run: RabbitMQ: it is not here." in text
    assert "| executions of decoders | 1,200 |" in text


def test_the_published_page_is_what_its_figures_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read_runs(FIGURES)), "make it again: ./dev proof --from docs/proof"


def test_a_broken_promise_is_on_the_page(folder: Path) -> None:
    put(folder / "chaos-8.json", CHAOS | {"violations": ["a write is gone"]})
    assert "- VIOLATION: a write is gone" in written(folder)


def test_each_broker_has_a_table_of_its_own_and_runs_of_one_are_added_up(folder: Path) -> None:
    for seed in (8, 9):
        put(folder / f"chaos-rabbitmq-{seed}.json", CHAOS | {"broker": "rabbitmq", "seed": seed, "not_run": []})
    on_redis, on_rabbitmq = written(folder).partition("## Bad input")[0].split("## Real processes, on ")[1:]
    assert on_redis.startswith("PostgreSQL and Redis\n`./dev chaos --broker redis ")
    assert "| rounds of faults | 9 |" in on_redis
    assert on_rabbitmq.startswith("PostgreSQL and RabbitMQ\n`./dev chaos --broker rabbitmq ")
    assert "seed 8, 9." in on_rabbitmq
    assert "| rounds of faults | 18 |" in on_rabbitmq


def test_a_missing_lane_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mutants.json").unlink()
    assert main(["--from", str(folder), "--output", str(folder / "proof.md")]) == 2
    assert "holds no figures of mutants" in capsys.readouterr().err
