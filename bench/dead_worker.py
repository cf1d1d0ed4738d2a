"""How soon a killed worker's cycle goes on: ``kill -9`` of the process that runs it, again and again.

From the kill to the next ``CycleStarted`` of its workspace, both by the database's clock, on PostgreSQL and a broker of
the run's own. ``--alone``: no other worker is there, so the one that the parent starts goes on. ``--up``: the embedded
product is killed and started again, and what counts is the time from when it serves.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.servers.brokers import new_broker
from tests.servers.postgres import new_postgres
from tests.servers.programs import find_postgres, runnable
from tests.system.deployment import Deployment, Embedded, Production
from tests.system.history import Cycle
from tests.waiting import wait_until

SUMMARY = "how soon the cycle of a worker that was killed goes on"

_ENDS_AT_TERM = 'test "$ORCHESTRATOR_FENCE" -gt 1 || exec sleep 1000'
_SETTLED_S = 6.0
_MOST_S = {"worker": 2.0, "alone": 4.0, "up": 1.0}


def main(args: list[str]) -> int:
    """Kill so often, print the distribution; 1 if the 99th percentile is over the promise."""
    options = _options(args)
    if options.up:
        return _tell("up, from when it serves again", _kill_ups(options.kills), _MOST_S["up"])
    where = f"{options.broker}, {'alone' if options.alone else 'with another worker'}"
    return _tell(where, _kill_workers(options), _MOST_S["alone" if options.alone else "worker"])


def _tell(where: str, took: list[float], most_s: float) -> int:
    took.sort()
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))]
    print(
        f"{where}: {len(took)} kills, p50 {p50:.2f} s, p99 {p99:.2f} s, most {took[-1]:.2f} s (promised: {most_s:g} s)"
    )
    return 0 if p99 <= most_s else 1


def _kill_workers(options: argparse.Namespace) -> list[float]:
    with ExitStack() as stack:
        broker = stack.enter_context(new_broker(options.broker))
        programs = stack.enter_context(runnable(find_postgres(os.environ)))
        postgres = stack.enter_context(new_postgres(programs, durable=True))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-dead-worker-")))
        url = postgres.url(postgres.create_database())
        deployment = Production(folder, database_url=url, broker_url=broker.url)
        stack.callback(deployment.abort)
        deployment.start()
        if options.alone:
            deployment.processes["worker-2"].kill()
        took = [_kill_once(deployment) for _ in range(options.kills)]
        deployment.stop()
    return took


def _kill_ups(kills: int) -> list[float]:
    with TemporaryDirectory(prefix="bench-dead-up-") as folder:
        deployment = Embedded(Path(folder))
        try:
            deployment.start()
            took = [_kill_up_once(deployment) for _ in range(kills)]
            deployment.stop()
        finally:
            deployment.abort()
    return took


def _options(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench dead-worker", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--up", action="store_true")
    return parser.parse_args(args)


def _begin(deployment: Deployment) -> tuple[str, Cycle]:
    """Return a workspace and its cycle, whose command runs."""
    workspace = deployment.register()
    target = {"argv": ["sh", "-c", _ENDS_AT_TERM]}
    deployment.client.register(workspace, {"executor": "command", "target": target, "policy": {"lease": "30s"}})
    deployment.write(workspace, "a")
    cycle = wait_until(lambda: deployment.history(workspace).running, what="a cycle runs", timeout_s=30)
    wait_until(lambda: _runs(cycle.start.cycle), what="its command runs")
    return workspace, cycle


def _goes_on(deployment: Deployment, workspace: str) -> datetime:
    """Return when the next cycle started."""
    starts = wait_until(
        lambda: found if len(found := deployment.history(workspace).starts) > 1 else None,
        what="the cycle goes on",
        timeout_s=30,
    )
    return starts[1].started_at


def _kill_up_once(deployment: Embedded) -> float:
    workspace, _ = _begin(deployment)
    deployment.processes["up"].kill()
    deployment.start_up()
    serves_at = deployment.now()
    return max(0.0, (_goes_on(deployment, workspace) - serves_at) / timedelta(seconds=1))


def _kill_once(deployment: Production) -> float:
    workspace, cycle = _begin(deployment)
    worker = int(cycle.start.worker.split(":")[1])
    # One that dies soon after its start, again and again, is not started again at once: each has to live for a while.
    wait_until(lambda: time.time() - psutil.Process(worker).create_time() > _SETTLED_S, what="the worker has settled")
    killed_at = deployment.now()
    os.kill(worker, signal.SIGKILL)
    return (_goes_on(deployment, workspace) - killed_at) / timedelta(seconds=1)


def _runs(cycle: str) -> bool:
    """Say whether the cycle's command runs."""
    wanted = f"ORCHESTRATOR_CYCLE={cycle}".encode()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                return True
        except OSError:  # it has ended, or is another user's
            continue
    return False
