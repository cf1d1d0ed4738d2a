"""What every Python peer shares: sending a plan and logging jobs. Runs in the peers' own environment."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

QUIET_S = float(os.environ["BENCH_QUIET_S"])
JOB_S = float(os.environ["BENCH_JOB_S"])
JOBS_AT_ONCE = int(os.environ["BENCH_JOBS_AT_ONCE"])
IN_FLIGHT = int(os.environ["BENCH_IN_FLIGHT"])
SERVER = os.environ["BENCH_SERVER"]
KIND = os.environ.get("BENCH_KIND", "")


class JobLog:
    """Stamps of jobs, a line each."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def done(self, workspace: str, began_ns: int) -> None:
        """Add a job that ends now."""
        os.write(self._file, f"{workspace} {began_ns} {time.monotonic_ns()}\n".encode())


def plan_of(path: str) -> list[tuple[float, str]]:
    """Return a plan: when, and to which workspace."""
    return [(at, workspace) for at, workspace in json.loads(Path(path).read_text())]


async def drive(send: Callable[[str], Awaitable[object]], plan_path: str, log_path: str) -> None:
    """Send a plan and log it."""
    lines: list[str] = []
    await _send(send, plan_of(plan_path), lines)
    write_log(log_path, lines)


def write_log(path: str, lines: list[str]) -> None:
    """Write what was sent when, and acknowledged when."""
    Path(path).write_text("".join(lines))


async def _send(send: Callable[[str], Awaitable[object]], plan: list[tuple[float, str]], lines: list[str]) -> None:
    """Send what is due at once from so many senders, the rest each at its instant."""

    async def one(workspace: str) -> None:
        sent = time.monotonic_ns()
        await send(workspace)
        lines.append(f"{workspace} {sent} {time.monotonic_ns()}\n")

    if all(at == 0 for at, _ in plan):
        following = iter(plan)

        async def sender() -> None:
            for _, workspace in following:
                await one(workspace)

        await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    else:
        began, under_way = time.monotonic(), []
        for at, workspace in plan:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            under_way.append(asyncio.ensure_future(one(workspace)))
        await asyncio.gather(*under_way)


def drive_blocking(send: Callable[[str], object], plan_path: str, log_path: str) -> None:
    """Send one after the other, each at its instant at the earliest: for clients that know no other way."""
    lines, began = [], time.monotonic()
    for at, workspace in plan_of(plan_path):
        time.sleep(max(0.0, began + at - time.monotonic()))
        sent = time.monotonic_ns()
        send(workspace)
        lines.append(f"{workspace} {sent} {time.monotonic_ns()}\n")
    write_log(log_path, lines)


def ready() -> None:
    """Say that the worker is ready."""
    print("ready", flush=True)
