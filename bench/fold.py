"""``./dev bench fold``: windows that are due at once, folded while nothing can start; beside an older revision."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.builds import Build
from bench.due_at_once import Servers, folded, waiting_product
from bench.figures import Figure, Gate
from bench.gates import verified
from bench.limits import rows_on_postgres, rows_on_sqlite
from bench.products import POSTGRES, SQLITE
from bench.run import Run
from bench.servers import durable_postgres, durable_redis

SUMMARY = (
    "windows due at once, folded while nothing can start; beside what the database can store, and an older revision"
)
_PART = "fold"
_TRIAL = 400
_QUICK = (5_000, 500)
"""Workspaces of a quick run, which has no time for a first try: of today's build, of an older one."""

_MOST = 20_000
_OVER_OLDER = {POSTGRES: (30, 60), SQLITE: (20, 40)}
_ONE_SLOT = {"ORCHESTRATOR_SLOTS": "1"}


def measure(run: Run) -> None:
    """Measure both stores in turns, and add what was found."""
    found: dict[tuple[str, str], list[float]] = {}
    limits: dict[str, list[float]] = {}
    gates: list[Gate] = []
    with run.folder() as folder, ExitStack() as stack:
        servers = Servers(stack.enter_context(durable_postgres()), stack.enter_context(durable_redis()))
        sizes = {
            (build.name, store): _size(run, build, store, folder, servers)
            for build in run.builds
            for store in (POSTGRES, SQLITE)
        }
        for _ in range(run.of(2, 1)):
            limits.setdefault(POSTGRES, []).append(rows_on_postgres(servers.postgres, together=1000, seconds=1.0))
            limits.setdefault(SQLITE, []).append(rows_on_sqlite(folder, together=1000, seconds=1.0))
            for store in (POSTGRES, SQLITE):
                for build in run.builds:
                    rate, gate = _turn(build, store, folder, servers, sizes[build.name, store])
                    found.setdefault((build.name, store), []).append(rate)
                    gates.append(gate)
                    run.say(f"fold: {build.name} on {store}: {rate:,.0f}/s of {sizes[build.name, store]:,}")
    run.findings.gates += gates
    for store in (POSTGRES, SQLITE):
        run.findings.figures += _figures(run, store, found, limits[store], sizes)


def _size(run: Run, build: Build, store: str, folder: Path, servers: Servers) -> int:
    """Return for how many workspaces a turn of some seconds has time."""
    if run.quick:
        return _QUICK[0 if build.is_todays else 1]
    rate, _ = _turn(build, store, folder, servers, _TRIAL)
    run.say(f"fold: {build.name} on {store}: a first try of {_TRIAL}: {rate:,.0f}/s")
    return min(_MOST, max(_TRIAL, round(rate * 6)))


def _turn(build: Build, store: str, folder: Path, servers: Servers, size: int) -> tuple[float, Gate]:
    with waiting_product(build, store, folder, servers, settings=_ONE_SLOT) as product:
        rate = folded(product, size)
        product.kill()  # its one slot is taken for minutes
        return rate, verified(_PART, product)


def _figures(
    run: Run,
    store: str,
    found: dict[tuple[str, str], list[float]],
    limits: list[float],
    sizes: dict[tuple[str, str], int],
) -> list[Figure]:
    ours, size = found[run.today.name, store], sizes[run.today.name, store]
    what = "windows folded, nothing can start"
    figures = [
        Figure(
            part=_PART,
            what=what,
            store=store,
            ours=ours,
            unit="/s",
            against="rows of an event's size inserted, 1,000 a commit",
            other=limits,
            note=f"{size:,} workspaces due at once",
        )
    ]
    if run.older is not None:
        least, aim = _OVER_OLDER[store]
        figures.append(
            Figure(
                part=_PART,
                what=what,
                store=store,
                ours=ours,
                unit="/s",
                against=f"commit {run.older.name}",
                other=found[run.older.name, store],
                least=least,
                aim=aim,
                note=f"{run.older.name}: {sizes[run.older.name, store]:,} workspaces",
            )
        )
    return figures
