"""``./dev bench drain``: cycles a second of one worker, beside Celery tasks that do nothing and an older revision."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.builds import Build
from bench.due_at_once import SLOTS, Drained, Servers, drained, waiting_product
from bench.figures import Figure, Gate
from bench.gates import one_restart_each, verified
from bench.machine import ROOT
from bench.products import POSTGRES, SQLITE
from bench.run import Run
from bench.servers import AppendingRedis, durable_postgres, durable_redis

SUMMARY = "cycles a second of one worker, beside Celery tasks that do nothing and an older revision"
_PART = "drain"
_TRIAL = 160
"""Workspaces of a first try that says how many a turn can take."""

_QUICK = (800, 80)
"""Workspaces of a quick run, which has no time for a first try: of today's build, of an older one."""

_MOST = 4_000
_OVER_OLDER = {POSTGRES: (30, 60), SQLITE: (None, None)}
_OVER_CELERY = (0.4, 0.8)


def measure(run: Run) -> None:
    """Measure both stores and Celery in turns, and add what was found."""
    found: dict[tuple[str, str], list[Drained]] = {}
    celery: list[dict[str, float]] = []
    gates: list[Gate] = []
    with run.folder() as folder, ExitStack() as stack:
        servers = Servers(stack.enter_context(durable_postgres()), stack.enter_context(durable_redis()))
        sizes = {
            (build.name, store): _size(run, build, store, folder, servers)
            for build in run.builds
            for store in (POSTGRES, SQLITE)
        }
        for _ in range(run.of(2, 1)):
            celery.append(_celery(servers.redis, run.of(6_000, 2_000)))
            run.say(
                f"drain: Celery alone: {celery[-1]['a_second']:,.0f} tasks/s, {celery[-1]['cpu_ms']:.2f} ms CPU each"
            )
            for store in (POSTGRES, SQLITE):
                for build in run.builds:
                    with waiting_product(build, store, folder, servers) as product:
                        size = sizes[build.name, store]
                        turn = drained(product, size)
                        product.stop()
                        gates += [*one_restart_each(_PART, product, restarts=size), verified(_PART, product)]
                    found.setdefault((build.name, store), []).append(turn)
                    run.say(_said(build, store, turn))
    run.findings.gates += gates
    for store in (POSTGRES, SQLITE):
        run.findings.figures += _figures(run, store, found, celery)


def _size(run: Run, build: Build, store: str, folder: Path, servers: Servers) -> int:
    """Return for how many workspaces a turn of some seconds has time."""
    if run.quick:
        return _QUICK[0 if build.is_todays else 1]
    with waiting_product(build, store, folder, servers) as product:
        trial = drained(product, _TRIAL)
        product.stop()
    run.say(f"drain: {build.name} on {store}: a first try of {_TRIAL}: {trial.cycles_a_second:.0f} cycles/s")
    return min(_MOST, max(_TRIAL, round(trial.cycles_a_second * 8)))


def _celery(redis: AppendingRedis, tasks: int) -> dict[str, float]:
    words = [sys.executable, "-m", "bench.celery_nothing", redis.url, str(tasks), str(SLOTS[POSTGRES])]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(ran.stdout)
    return told


def _figures(
    run: Run, store: str, found: dict[tuple[str, str], list[Drained]], celery: list[dict[str, float]]
) -> list[Figure]:
    ours = found[run.today.name, store]
    what = f"cycles of one worker, {SLOTS[store]} slots, executor that does nothing"
    rates = [turn.cycles_a_second for turn in ours]
    note = f"{ours[0].workspaces:,} workspaces due at once, {median(turn.cpu_ms for turn in ours):.2f} ms CPU a cycle"
    least, aim = _OVER_CELERY if store == POSTGRES else (None, None)
    figures = [
        Figure(
            part=_PART,
            what=what,
            store=store,
            ours=rates,
            unit="/s",
            against="Celery tasks that do nothing, 16 threads, the same Redis",
            other=[turn["a_second"] for turn in celery],
            least=least,
            aim=aim,
            note=note,
        )
    ]
    if run.older is not None:
        others = found[run.older.name, store]
        least_older, aim_older = _OVER_OLDER[store]
        cost = median(turn.cpu_ms for turn in others)
        figures.append(
            Figure(
                part=_PART,
                what=what,
                store=store,
                ours=rates,
                unit="/s",
                against=f"commit {run.older.name}",
                other=[turn.cycles_a_second for turn in others],
                least=least_older,
                aim=aim_older,
                note=f"{run.older.name}: {others[0].workspaces:,} workspaces, {cost:.2f} ms CPU a cycle",
            )
        )
    return figures


def _said(build: Build, store: str, turn: Drained) -> str:
    return (
        f"drain: {build.name} on {store}: {turn.cycles_a_second:,.0f} cycles/s of {turn.workspaces:,}, "
        f"folded at {turn.folded_a_second:,.0f}/s, {turn.cpu_ms:.2f} ms CPU a cycle"
    )
