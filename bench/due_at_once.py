"""Many workspaces whose windows are due at the same time, on a product whose worker starts only then."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from bench.builds import Build
from bench.log_facts import count, cycles, events, rate_of_groups, restarts_ended
from bench.machine import Meter
from bench.products import POSTGRES, SQLITE, Product, on_postgres, on_sqlite, up
from bench.servers import AppendingRedis
from tests.servers.postgres import PostgresServer

SLOTS = {SQLITE: 4, POSTGRES: 16}
"""The defaults of `up` and of `worker`."""

_QUIET_S = 2.0
_TOGETHER = 500
_LOOKS_EVERY_S = 0.05
_ENDS_WITHIN_S = 180.0
_ALREADY = 0.05
"""What share of the cycles has ended when CPU begins to be counted: not that of the worker's start."""

_POLICY = {
    "ORCHESTRATOR_POLICY_QUIET": f"{_QUIET_S:.0f}s",
    "ORCHESTRATOR_POLICY_MAX_WAIT": "30m",
    "ORCHESTRATOR_POLICY_MIN_INTERVAL": "0s",
    "ORCHESTRATOR_POLICY_SETTLE": "0s",
    "ORCHESTRATOR_POLICY_CYCLE_TIMEOUT": "30m",
}


@dataclass(frozen=True)
class Servers:
    """The database and broker of the products that are not embedded."""

    postgres: PostgresServer
    redis: AppendingRedis


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What came of it: workspaces folded and cycles run a second, and CPU milliseconds of all processes a cycle."""

    workspaces: int
    folded_a_second: float
    cycles_a_second: float
    cpu_ms: float


@contextmanager
def waiting_product(
    build: Build, store: str, folder: Path, servers: Servers, *, settings: Mapping[str, str] | None = None
) -> Iterator[Product]:
    """Yield a product that takes writes and carries nothing out yet: an API and no worker."""
    given = {**_POLICY, **(settings or {})}
    broker = (servers.redis.url, servers.redis.pid)
    made = (
        on_sqlite(build, folder, given)
        if store == SQLITE
        else on_postgres(build, folder, given, servers.postgres, broker=broker)
    )
    with made as product:
        alone = {"ORCHESTRATOR_DATABASE_URL": product.database_url, "ORCHESTRATOR_AUTO_REGISTER": "simulated"}
        if store == SQLITE:
            product.folder.joinpath("data").mkdir()
            product.run("migrate", "migrate", **alone).wait(60)
        product.serve("api", "api", ORCHESTRATOR_BIND="127.0.0.1:0", **alone)
        yield product


def write_once_each(product: Product, workspaces: int) -> None:
    """Write once to each workspace, which registers it with an executor that does nothing."""
    with httpx2.Client(base_url=product.url, timeout=60) as client:
        for start in range(0, workspaces, _TOGETHER):
            batch = [
                {"workspace": f"ws-{number:06}", "path": "src/app.py"}
                for number in range(start, min(start + _TOGETHER, workspaces))
            ]
            answer = client.post("/v1/writes", content=json.dumps(batch), headers={"content-type": "application/json"})
            if answer.status_code != 202 or answer.json()["accepted"] != len(batch):
                raise AssertionError(f"{answer.status_code}: {answer.text[:400]}")


def occupy_the_slot(product: Product) -> None:
    """Make a workspace whose restart takes for ever: with one slot nothing else starts after it."""
    body = {"executor": "simulated", "target": {"delay": "20m"}}
    with httpx2.Client(base_url=product.url, timeout=60) as client:
        client.put("/v1/workspaces/blocker", json=body).raise_for_status()
        client.post("/v1/workspaces/blocker/writes", json={"path": "x"}).raise_for_status()


def work(product: Product) -> None:
    """End the API, wait until all is due, and start what carries restarts out."""
    product.stop("api")
    time.sleep(_QUIET_S)  # bench, not a test: the windows' own time
    if product.store == SQLITE:
        up(product)
    else:
        product.run("worker", "worker")
        product.run("beat", "beat")


def drained(product: Product, workspaces: int) -> Drained:
    """Let the workers carry all out; return how fast. Raises ``AssertionError`` if it takes minutes."""
    write_once_each(product, workspaces)
    work(product)
    _until(product, lambda: restarts_ended(product.database_url), max(1, int(workspaces * _ALREADY)))
    before = restarts_ended(product.database_url)
    meter = Meter(product.pids)
    _until(product, lambda: restarts_ended(product.database_url), workspaces)
    cpu_s = meter.own_s()
    ended, _ = cycles(product.database_url)
    took_s = max(cycle.ended_at for cycle in ended) - min(cycle.started_at for cycle in ended)
    return Drained(
        workspaces=workspaces,
        folded_a_second=fold_rate(product),
        cycles_a_second=len(ended) / took_s,
        cpu_ms=cpu_s / max(1, len(ended) - before) * 1000,
    )


def folded(product: Product, workspaces: int) -> float:
    """Let the worker fold all while its one slot is taken; return how many a second."""
    occupy_the_slot(product)
    write_once_each(product, workspaces)
    work(product)
    _until(product, lambda: count(product.database_url, "RestartQueued"), workspaces + 1)
    return fold_rate(product)


def fold_rate(product: Product) -> float:
    """Return how many restarts a second were queued, from the log."""
    return rate_of_groups([event.at for event in events(product.database_url, "RestartQueued")])


def _until(product: Product, seen: Callable[[], int], wanted: int) -> None:
    until = time.monotonic() + _ENDS_WITHIN_S
    while (found := seen()) < wanted:
        if time.monotonic() > until:
            raise AssertionError(f"{found} of {wanted} within {_ENDS_WITHIN_S:g} s on {product.build.name}")
        time.sleep(_LOOKS_EVERY_S)
