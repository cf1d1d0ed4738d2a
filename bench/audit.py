"""``./dev bench audit``: what the audit costs, as ratios in one run, on PostgreSQL and SQLite."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.databases import postgres_url, sqlite_url
from bench.figures import Figure, Findings
from bench.log_files import Wanted, sqlite_file
from bench.machine import described
from bench.passes import measure_passes
from bench.products import POSTGRES, SQLITE
from bench.proofs import measure_seal, measure_verify
from bench.questions import measure_questions
from bench.ratios import Bar, LogIsNotGood, Ratio, Run, table
from bench.statements import driver
from orchestrator.errors import OrchestratorError

SUMMARY = "the audit's questions, pages, replay, export, verify and sealing, against what each can't do without"
ROOT = Path(__file__).resolve().parent.parent
_DATABASES: dict[str, Callable[[Path, Wanted], AbstractContextManager[str]]] = {
    "sqlite": sqlite_url,
    "postgres": postgres_url,
}
_VERIFY = "verify"
_PARTS: dict[str, Callable[[Run], Iterator[Ratio]]] = {
    _VERIFY: measure_verify,
    "questions": measure_questions,
    "passes": measure_passes,
    "seal": measure_seal,
}


def main(args: Sequence[str]) -> int:
    """Measure and print. Returns 1 if nothing could be measured, or with ``--strict`` if a bar is missed."""
    given = _parser().parse_args(args)
    ratios: list[Ratio] = []
    machine = _machine() | {"clock": "this process's own time" if given.clock is time.process_time else "the wall's"}
    wanted = Wanted(count=given.events, folder=given.folder, fresh=given.fresh, say=_say)
    source = sqlite_file(wanted)
    for name in given.database or list(_DATABASES):
        with _DATABASES[name](source, wanted) as url:
            machine[name] = _version(url)
            run = Run(url=url, database=name, rounds=given.rounds, passes=given.passes, clock=given.clock)
            try:
                ratios += _measured(run, [part for part in given.only or _PARTS if part != _VERIFY or not ratios])
            except (LogIsNotGood, OrchestratorError) as error:
                _say(str(error))
                return 1
    if given.json:
        print(json.dumps({"events": given.events, **machine, "ratios": [item.plain() for item in ratios]}, indent=1))
    else:
        print(table(ratios))
    if given.write_json:
        given.write_json.write_text(json.dumps(_as_run(given.events, machine, ratios), indent=1) + "\n")
    return 1 if given.strict and not all(item.met for item in ratios) else 0


def _measured(run: Run, parts: Sequence[str]) -> Iterator[Ratio]:
    for part in parts:
        for ratio in _PARTS[part](run):
            _say(f"{run.database}: {ratio.what}: {ratio.ratio:.2f}")
            yield ratio


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev bench audit", description=SUMMARY)
    parser.add_argument("--events", type=int, default=1_000_000, help="length of the log (default 1,000,000)")
    parser.add_argument("--database", action="append", choices=list(_DATABASES), help="only this one; may be repeated")
    parser.add_argument("--only", action="append", choices=list(_PARTS), help="only this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="how often each short thing is measured")
    parser.add_argument("--passes", type=int, default=3, help="how often each pass over the log is measured")
    parser.add_argument(
        "--cpu",
        dest="clock",
        action="store_const",
        const=time.process_time,
        default=time.perf_counter,
        help="count this process's own time: steadier on a busy machine, but without PostgreSQL's work",
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where logs are kept (default .bench)")
    parser.add_argument("--fresh", action="store_true", help="make the log anew, though one is kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument(
        "--write-json",
        type=Path,
        metavar="FILE",
        help="write the figures to a file too, as `./dev bench page` reads them",
    )
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _machine() -> dict[str, str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(url: str) -> str:
    if url.startswith("sqlite"):
        return sqlite3.sqlite_version
    with driver(url) as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchall()[0][0])


def _as_run(events: int, machine: dict[str, str], ratios: Sequence[Ratio]) -> dict[str, Any]:
    """Return the figures of a run in the shape that all runs share."""
    found = Findings(figures=[_figure(events, ratio) for ratio in ratios])
    versions = ", ".join(f"{name} {machine[name]}" for name in _DATABASES if name in machine)
    found.around.append(f"audit: a log of {events:,} events, {versions}; times are {machine['clock']}")
    return {"parts": ["audit"], **described(), "against": None, "quick": False, **found.plain()}


def _figure(events: int, ratio: Ratio) -> Figure:
    """Return a cost in milliseconds, or a speed in events of the whole log a second."""
    is_cost = ratio.bar is Bar.COST_AT_MOST
    ours, other = (took_s * 1000 if is_cost else events / took_s for took_s in (ratio.ours_s, ratio.other_s))
    return Figure(
        part="audit",
        what=ratio.what,
        store={"sqlite": SQLITE, "postgres": POSTGRES}.get(ratio.database, ratio.database),
        ours=[ours],
        unit="ms" if is_cost else "events/s",
        against=ratio.against,
        other=[other],
        more_is_better=not is_cost,
        least=ratio.limit,
        note=ratio.note,
    )
