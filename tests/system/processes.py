"""One process of the product under a test's control: it can be killed, frozen and read."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from orchestrator.crash_points import KILLED
from tests.system.fork_server import ForkedChild, ForkServer
from tests.waiting import wait_until

ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")

_LISTENING = re.compile(r"Listening on (http://\S+)")
_START_TIMEOUT_S = 30.0
_TAIL = 20_000


class OrchestratorProcess:
    """``orchestrator ARGS``, started, with its output in ``log``."""

    def __init__(
        self,
        name: str,
        args: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        forks: ForkServer | None = None,
        program: Sequence[str] = (str(ORCHESTRATOR),),
    ) -> None:
        """Start it, from ``forks`` where given: that is ten times faster, and takes neither ``cwd`` nor ``program``."""
        self.name, self.log = name, log
        self._is_worker = list(args[:1]) == ["worker"]
        self._popen: subprocess.Popen[bytes] | ForkedChild
        if forks is not None:
            self._popen = forks.start(args, env=env, log=log)
            return
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*program, *args],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the tests, not for what they started
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        """What it said last, for a test that fails."""
        state = "alive" if self.alive else f"exit code {self.exit_code}"
        return f"--- {self.name} ({state}), {self.log.name} ends:\n{self.output[-_TAIL:]}"

    def url(self) -> str:
        """Wait until the API says where it listens."""
        return self.await_output(_LISTENING)

    def await_output(self, wanted: re.Pattern[str], *, timeout_s: float = _START_TIMEOUT_S) -> str:
        """Wait for a line; return the pattern's first group, or the whole match."""

        def found() -> str | None:
            match = wanted.search(self.output)
            assert match is not None or self.alive, f"{self.name} ended:\n{self.tail()}"
            return None if match is None else match[match.lastindex or 0]

        return wait_until(found, what=f"{self.name} writes {wanted.pattern!r}", timeout_s=timeout_s)

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def workers(self) -> list[psutil.Process]:
        """Return the worker that this parent has, for a moment perhaps none."""
        try:
            return psutil.Process(self.pid).children() if self._is_worker and self.alive else []
        except psutil.NoSuchProcess:
            return []

    @property
    def acting_pid(self) -> int:
        """The process that does the work: of a worker, the child."""
        return next((worker.pid for worker in self.workers()), self.pid)

    @property
    def crashed(self) -> bool:
        """Say whether it came to its crash point; a worker's parent tells of that, and goes on with another child."""
        return f'"code":{KILLED}' in self.output if self._is_worker else not self.alive

    def kill(self) -> None:
        """End it as a power cut would: of a worker, parent and child together."""
        if self._is_worker and self.alive:
            self.signal(signal.SIGSTOP)  # it must not see its child's end, and start another
        for worker in self.workers():
            worker.kill()
        self._popen.kill()
        self._popen.wait(10)

    def kill_child(self) -> bool:
        """End a worker's child alone, which its parent sees; return whether there was one."""
        children = self.workers()
        for child in children:
            child.kill()
        return bool(children)

    def kill_parent(self) -> None:
        """End a worker's parent alone: its child is left, and has to see that by itself."""
        self._popen.kill()
        self._popen.wait(10)

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does: its connections stay open."""
        for worker in self.workers():
            worker.suspend()
        if not self._is_worker:
            self.signal(signal.SIGSTOP)
        self.await_stopped()

    def await_stopped(self, *, timeout_s: float = 10.0) -> None:
        """Wait until it stands still, whoever stopped it."""

        def stopped() -> bool:
            whole = self.workers() if self._is_worker else [psutil.Process(self.pid)]
            return any(process.status() == psutil.STATUS_STOPPED for process in whole)

        wait_until(stopped, what=f"{self.name} is stopped", timeout_s=timeout_s)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        for worker in self.workers():
            worker.resume()
        self.signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; return the exit code."""
        return self._popen.wait(timeout_s)
