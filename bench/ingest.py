"""``./dev bench ingest``: ``record_writes`` in one process, beside rows the database can take and an older revision."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.builds import Build
from bench.figures import Figure
from bench.limits import rows_on_postgres, rows_on_sqlite
from bench.machine import ROOT
from bench.products import POSTGRES, SQLITE
from bench.run import Run
from bench.servers import durable_postgres
from tests.servers.postgres import PostgresServer

SUMMARY = "record_writes in one process, beside rows the database can take and an older revision"
_PART = "ingest"


@dataclass(frozen=True, kw_only=True)
class Case:
    """So many threads that call, each with so many writes."""

    name: str
    callers: int
    together: int


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Writes a second, and CPU microseconds of the process a write."""

    a_second: float
    cpu_us: float


_CASES = (
    Case(name="one caller, 1 write a call", callers=1, together=1),
    Case(name="64 callers, 1 write a call", callers=64, together=1),
    Case(name="one caller, 64 writes a call", callers=1, together=64),
)
Found = dict[tuple[str, str, str], list[Recorded]]


def measure(run: Run) -> None:
    """Measure both stores in turns, and add what was found."""
    found: Found = {}
    limits: dict[tuple[str, str], list[float]] = {}
    with run.folder() as folder, ExitStack() as stack:
        postgres = stack.enter_context(durable_postgres())
        for turn in range(run.of(2, 1)):
            for case in _CASES:
                rows = case.callers * case.together
                limits.setdefault((case.name, SQLITE), []).append(rows_on_sqlite(folder, together=rows, seconds=1))
                limits.setdefault((case.name, POSTGRES), []).append(
                    rows_on_postgres(postgres, together=rows, seconds=1)
                )
                for store in (SQLITE, POSTGRES):
                    for build in run.builds:
                        url = _url(store, folder / f"{turn}-{build.name}-{case.callers}-{case.together}.db", postgres)
                        stored = recorded(build, url, case, seconds=run.of(4, 1))
                        found.setdefault((case.name, store, build.name), []).append(stored)
                        run.say(
                            f"ingest: {case.name}: {build.name} on {store}: {stored.a_second:,.0f}/s,"
                            f" {stored.cpu_us:.0f} us CPU a write"
                        )
    for store in (SQLITE, POSTGRES):
        for case in _CASES:
            run.findings.figures += _figures(run, case, store, found, limits[case.name, store])


def _url(store: str, path: Path, postgres: PostgresServer) -> str:
    return f"sqlite:///{path}" if store == SQLITE else postgres.url(postgres.create_database())


def recorded(build: Build, url: str, case: Case, *, seconds: int) -> Recorded:
    """Let a process of that build record for so long, and return how fast it was."""
    words = [str(build.python), str(ROOT / "bench" / "ingest_child.py"), url]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "PYTHON"))
    }
    if build.is_todays:
        environment["PYTHONPATH"] = str(ROOT)
    ran = subprocess.run(
        [*words, str(case.callers), str(case.together), str(seconds)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise AssertionError(ran.stderr[-1500:])
    told = json.loads(ran.stdout.splitlines()[-1])
    return Recorded(a_second=told["writes"] / told["took_s"], cpu_us=told["cpu_s"] / told["writes"] * 1e6)


def _figures(run: Run, case: Case, store: str, found: Found, limits: list[float]) -> list[Figure]:
    ours = found[case.name, store, run.today.name]
    what = f"record_writes in one process, {case.name}"
    cost = ours[len(ours) // 2].cpu_us
    figures = [
        Figure(
            part=_PART,
            what=what,
            store=store,
            ours=[item.a_second for item in ours],
            unit="/s",
            against=f"rows of an event's size inserted, {case.callers * case.together} a commit",
            other=limits,
            note=f"{cost:.0f} us CPU of the process a write",
        )
    ]
    if run.older is not None:
        others = found[case.name, store, run.older.name]
        figures.append(
            Figure(
                part=_PART,
                what=what,
                store=store,
                ours=[item.a_second for item in ours],
                unit="/s",
                against=f"commit {run.older.name}",
                other=[item.a_second for item in others],
                note=f"{run.older.name}: {others[len(others) // 2].cpu_us:.0f} us CPU a write",
            )
        )
    return figures
