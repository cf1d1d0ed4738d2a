"""What the executors' tests share: orders, waiting on a condition, and finding real processes."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.ports.executor import Executor, Order
from workers.supervision.launch import Launch

# Says that it got that far, ignores TERM, and lives until it is killed.
DEAF = "trap '' TERM; : > \"$MARK\"; while :; do sleep 1000; done"

_numbers = itertools.count(1)


def unique_workspace() -> str:
    return f"ws-{time.time_ns()}-{next(_numbers)}"


def order_for(
    executor: Executor,
    target: dict[str, Any],
    *,
    workspace: str | None = None,
    fence: int | None = None,
    within_s: float = 10.0,
    stop: threading.Event | None = None,
) -> Order:
    number = next(_numbers)
    return Order(
        workspace=workspace or unique_workspace(),
        restart=f"rst_{number}",
        cycle=f"cyc_{number}",
        fence=number if fence is None else fence,
        target=executor.normalise(target),
        reason="max_wait",
        deadline_s=time.monotonic() + within_s,
        stop=stop or threading.Event(),
    )


def eventually(condition: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait until the condition holds; fail if it does not in time."""
    until_s = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until_s, f"not within {within_s} s"
        pause.wait(0.01)


def processes_with(variable: str, value: str) -> list[int]:
    """Return the living processes that inherited this environment variable."""
    wanted = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:  # it has ended, or is another user's
                continue
            if wanted in environment.split(b"\0"):
                found.append(int(folder.name))
    return found


def processes_of(workspace: str) -> list[int]:
    return processes_with("ORCHESTRATOR_WORKSPACE", workspace)


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Run the work in a thread; at the end of the block join it and have what it raised in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 (the test looks at it)
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        thread.join(15)
    assert not thread.is_alive()


def launch(tag: str, *argv: str, grace_s: float = 5, **env: str) -> Launch:
    return Launch(argv=argv, env={**os.environ, "TAG": tag, **env}, grace_s=grace_s)


def sleeper(tag: str) -> Launch:
    return launch(tag, "sleep", "1000")


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


def record(tmp_path: Path, workspace: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((tmp_path / "process" / f"{workspace}.json").read_text())
    return found
