"""``up --watch`` over a folder, and the server that it supervises."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import httpx2
import psutil

from tests.servers.process import LOOPBACK, free_port
from tests.system import counted_server
from tests.system.deployment import Embedded
from tests.system.fork_server import ForkServer
from tests.system.history import History, check_sound
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

WORKSPACE = "site"


class Watching(Embedded):
    """``up --watch`` over a folder, with a server of the tests' own."""

    def __init__(self, folder: Path, *, forks: ForkServer | None = None) -> None:
        super().__init__(folder, forks=forks)
        self.watched = folder / WORKSPACE
        self.watched.mkdir()
        self.starts = folder / "starts"
        self.port = free_port()

    def start_up(self, *more: str) -> OrchestratorProcess:
        script = [sys.executable, counted_server.__file__, str(self.port), str(self.starts)]
        up = super().start_up("--watch", str(self.watched), "--quiet", "500ms", *more, "--", *script)
        self.await_server()
        return up

    @property
    def pids(self) -> list[int]:
        """The server's processes, in the order in which they were started."""
        return [int(line) for line in self.starts.read_text().split()] if self.starts.exists() else []

    @property
    def living(self) -> list[int]:
        return [pid for pid in self.pids if psutil.pid_exists(pid) and alive(pid)]

    def await_server(self, *, but: int | None = None) -> int:
        """Wait until the server answers, as another process than ``but``; return its pid."""

        def answers() -> int | None:
            try:
                pid = int(httpx2.get(f"http://{LOOPBACK}:{self.port}/", timeout=2).text)
            except httpx2.TransportError:
                return None
            return None if pid == but else pid

        return wait_until(answers, what="the supervised server answers", timeout_s=20, every_s=0.05)

    def settled_server(self, *, restarts: int) -> History:
        """Wait until nothing of the watched folder waits; its restarts leave no lines in a ledger."""
        wait_until(lambda: not self.state(WORKSPACE).pending, what="nothing waits", timeout_s=20)
        history = self.history(WORKSPACE)
        check_sound(history)
        assert len(history.queued) == restarts
        return history

    def save(self, *names: str) -> None:
        """Save files as an editor does."""
        for name in names:
            (self.watched / name).write_text(f"{name} {time.monotonic_ns()}\n")

    def abort(self) -> None:
        super().abort()
        for pid in self.living:
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Say whether a process runs, a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
