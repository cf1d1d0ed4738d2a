"""Ten minutes of saves and restarts at a steady pace: the memory of each process, and CPU a thousand writes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

from bench.due_at_once import Servers
from bench.figures import Figure, Line, Table
from bench.gates import all_acknowledged, one_restart_each, verified
from bench.log_facts import rows
from bench.machine import Meter, memory_mb
from bench.peers.plan import WRITES_EACH, Planned, paced, written
from bench.peers.product import product_in_race
from bench.peers.race import DidNotRun, Runner
from bench.products import POSTGRES, SQLITE, Product
from bench.run import Run

_PART = "scale"
_A_SECOND = 850
_SAMPLES = 120
_GROWS_MOST = 1.1
_CLEARED_WITHIN_S = 60.0
_BUSY = "SELECT count(*) FROM workspaces WHERE phase <> 'idle'"
_WARM = 0.4
"""The share of the time in which caches may fill; what comes after it is to be flat."""

Memory = dict[str, list[tuple[float, float]]]
"""By process: minutes since the start, and MB."""


@dataclass(frozen=True, kw_only=True)
class Steady:
    """What a product cost over the time."""

    writes: int
    memory: Memory
    cpu_s_a_thousand: float


def measure_steady(run: Run, servers: Servers) -> None:
    """Measure both stores, one after the other, and add what was found."""
    found: dict[str, Steady] = {}
    for store in (POSTGRES, SQLITE):
        found[store] = _steady(run, store, servers)
        run.findings.figures += _figures(store, found[store].memory, run.minutes)
        for name, points in found[store].memory.items():
            plot = f"memory over {run.minutes:g} minutes of {_A_SECOND} writes a second, MB"
            run.findings.lines.append(
                Line(part=_PART, plot=plot, name=f"{name}, {store}", x="minutes", y="MB", points=points)
            )
    heads = ("store", "writes", "CPU s a 1,000 writes", "MB at most: each process")
    run.findings.tables.append(
        Table(
            part=_PART,
            title=f"{run.minutes:g} minutes of saves and restarts, {_A_SECOND} writes a second",
            heads=heads,
            lines=[_line(store, one) for store, one in found.items()],
        )
    )


def saved_again_and_again(workspaces: int, minutes: float) -> tuple[list[Planned], int]:
    """Return the same saves over and over, and how many restarts are ideal: one a workspace and round."""
    round_s = workspaces * WRITES_EACH / _A_SECOND
    rounds = max(1, ceil(minutes * 60 / round_s))
    once = paced(workspaces)
    plan = [(number * round_s + at_s, name) for number in range(rounds) for at_s, name in once]
    return sorted(plan), rounds * workspaces


def _steady(run: Run, store: str, servers: Servers) -> Steady:
    plan, restarts = saved_again_and_again(run.of(1000, 200), run.minutes)
    with run.folder() as folder, product_in_race(run.today, store, folder, servers) as (product, runner):
        meter = Meter(product.pids)
        memory = _written_and_watched(runner, plan, folder, product, every_s=run.minutes * 60 / _SAMPLES)
        _await_cleared(product)
        cpu_s = meter.own_s()
        product.stop()
        run.findings.gates += [
            all_acknowledged(_PART, product, len(plan)),
            *one_restart_each(_PART, product, restarts=restarts),
            verified(_PART, product),
        ]
    steady = Steady(writes=len(plan), memory=memory, cpu_s_a_thousand=cpu_s / len(plan) * 1000)
    run.say(f"scale: {run.minutes:g} minutes on {store}: {_most_of(memory)} MB at most")
    return steady


def _written_and_watched(
    runner: Runner, plan: list[Planned], folder: Path, product: Product, *, every_s: float
) -> Memory:
    memory: Memory = {name: [] for name in product.processes}
    words = runner.client(written(plan, folder / "steady.plan"), folder / "steady.log")
    with (folder / "steady.said").open("wb") as said:
        client = subprocess.Popen(words, env=runner.environment, cwd=folder, stdout=said, stderr=said)
    began = time.monotonic()
    while client.poll() is None:
        for name, process in product.processes.items():
            memory[name].append(((time.monotonic() - began) / 60, memory_mb([process.pid])))
        try:
            client.wait(every_s)
        except subprocess.TimeoutExpired:
            continue
    if client.returncode != 0:
        raise DidNotRun((folder / "steady.said").read_text()[-800:])
    return memory


def _await_cleared(product: Product) -> None:
    """Wait until nothing waits or runs; where that takes too long the gates say what is missing."""
    until = time.monotonic() + _CLEARED_WITHIN_S
    while time.monotonic() < until and rows(product.database_url, _BUSY)[0][0]:
        time.sleep(0.1)


def _figures(store: str, memory: Memory, minutes: float) -> Iterator[Figure]:
    for name, points in memory.items():
        warm = [mb for at, mb in points if at >= minutes * _WARM] or [mb for _, mb in points]
        half = max(1, len(warm) // 2)
        yield Figure(
            part=_PART,
            what=f"memory of `{name}`, the last 30 % of {minutes:g} minutes under load",
            store=store,
            ours=[median(warm[-half:])],
            unit="MB",
            against="the 30 % before",
            other=[median(warm[:half])],
            more_is_better=False,
            least=_GROWS_MOST,
        )


def _line(store: str, steady: Steady) -> tuple[str, ...]:
    return (store, f"{steady.writes:,}", f"{steady.cpu_s_a_thousand:.3f}", _most_of(steady.memory))


def _most_of(memory: Mapping[str, list[tuple[float, float]]]) -> str:
    return ", ".join(f"{name} {max(mb for _, mb in points):.0f}" for name, points in memory.items())
