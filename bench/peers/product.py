"""The product in the race: writes over HTTP, restarts by an executor that stamps its calls."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.builds import Build
from bench.due_at_once import Servers
from bench.machine import ROOT
from bench.peers.plan import JOB_S, JOBS_AT_ONCE, QUIET_S
from bench.peers.race import Runner
from bench.products import SQLITE, Product, on_postgres, on_sqlite, up
from bench.stamp_executor import installed

_WORKER_STARTED = re.compile(r"worker.started")
_POLICY = {
    "ORCHESTRATOR_POLICY_QUIET": f"{QUIET_S * 1000:.0f}ms",
    "ORCHESTRATOR_POLICY_MAX_WAIT": "1h",
    "ORCHESTRATOR_POLICY_MIN_INTERVAL": "0s",
    "ORCHESTRATOR_POLICY_SETTLE": "0s",
    "ORCHESTRATOR_SLOTS": str(JOBS_AT_ONCE),
}
"""As the peers are told: restart when it was quiet for half a second, however long writes go on."""


@contextmanager
def product_in_race(
    build: Build,
    store: str,
    folder: Path,
    servers: Servers,
    *,
    batch: int = 1,
    job_s: float = JOB_S,
    processes: tuple[int, int] = (1, 1),
) -> Iterator[tuple[Product, Runner]]:
    """Yield a whole running product and how to race it: 64 connections, ``batch`` writes a request.

    ``processes``: how many workers and how many APIs, where they are not one; the connections go to all APIs in turn.
    """
    stamps = folder / "stamps.log"
    stamps.touch()
    settings = {**_POLICY, **installed(folder / "plug-in", stamps=stamps, job_s=job_s)}
    broker = (servers.redis.url, servers.redis.pid)
    made = (
        on_sqlite(build, folder, settings)
        if store == SQLITE
        else on_postgres(build, folder, settings, servers.postgres, broker=broker)
    )
    with made as product:
        if store == SQLITE:
            up(product)
        else:
            workers, apis = processes
            started = [product.run(f"worker-{number}", "worker") for number in range(workers)]
            for worker in started:
                worker.await_output(_WORKER_STARTED)
            product.run("beat", "beat")
            for number in range(apis):
                product.serve(f"api-{number}", "api")
        yield product, _runner(product, folder, stamps, batch)


def _runner(product: Product, folder: Path, stamps: Path, batch: int) -> Runner:
    def client(plan: Path, log: Path) -> list[str]:
        urls = ",".join(product.urls)
        return [sys.executable, "-m", "bench.planned_client", urls, str(plan), str(log), "64", str(batch)]

    return Runner(
        client=client, environment={"PYTHONPATH": str(ROOT)}, stamps=stamps, watched=product.pids, folder=folder
    )
