"""Faults that not every machine can bring: a full disk, and a worker of the version before."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.chaos.faults import Fault, Inject, last
from tests.chaos.production import ChaosProduction
from tests.chaos.small_disk import SmallDisk
from tests.system.processes import OrchestratorProcess


def full_disk(disk: SmallDisk) -> Fault:
    """The database's disk is full for a while."""

    def inject(production: ChaosProduction, chance: random.Random) -> None:
        for _ in range(chance.choice([3, 6, 12])):
            disk.fill()
            last(0.2)
        disk.free()

    return Fault("postgres", inject)


def older_worker(code: Path) -> Fault:
    """A rolling upgrade: for a while one of the workers is still the one of the version before the newest migration."""
    return Fault("worker-1", _older_worker(code))


def _older_worker(code: Path) -> Inject:
    def inject(production: ChaosProduction, chance: random.Random) -> None:
        production.end("worker-1")
        older = run_older(production, "worker-1", code)
        last(chance.uniform(3.0, 6.0))
        older.kill()
        production.kills["older worker", "kill -9"] += 1
        production.begin("worker-1")

    return inject


def run_older(production: ChaosProduction, name: str, code: Path) -> OrchestratorProcess:
    """Start the older version's worker in the place of one of today's, and return when it takes messages."""
    log = production.folder / f"{name}-older.log"
    process = OrchestratorProcess(
        name,
        ["worker"],
        env=production.environment() | {"PYTHONPATH": str(code)},
        log=log,
        cwd=code,
        program=(sys.executable, "-m", "orchestrator"),
    )
    production.processes[name] = process
    return process
