"""Processes of the product that start in a tenth of the time: forked from one that has imported everything already.

Each is a process of its own, to kill, freeze and read like any other; only its imports (1.3 s of CPU, measured) were
done before. The server has one thread, and touches neither network nor random ids before it forks.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
_IMPORTED_BEFORE = (
    "alembic.command",
    "celery.concurrency.thread",
    "celery.loaders.app",
    "celery.worker.components",
    "kombu.transport.memory",
    "kombu.transport.pyamqp",
    "orchestrator.cli.commands.up",
    "orchestrator.cli.serve",
    "sqlite3",
    "uvloop",
    "workers.redis_transport",
)
"""By name: as statements they once went as imports that nothing uses, and only the clock told."""


class ForkedChild:
    """What ``subprocess.Popen`` is to its caller, for a child of the fork server."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid

    def poll(self) -> int | None:
        return self._server.ended.get(self.pid)

    def wait(self, timeout: float) -> int:
        wait_until(lambda: self.poll() is not None, what=f"process {self.pid} ends", timeout_s=timeout)
        return self._server.ended[self.pid]

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The parent of all forked processes. Safe for use by several threads."""

    def __init__(self) -> None:
        self.ended: dict[int, int] = {}
        self._pids: list[int] = []
        self._starting = threading.Lock()
        self._answered = threading.Condition()
        ours, its = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.fork_server", str(its.fileno())],
            cwd=ROOT,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
        its.close()
        threading.Thread(target=self._listen, name="fork-server", daemon=True).start()

    def start(self, args: Sequence[str], *, env: Mapping[str, str], log: Path) -> ForkedChild:
        """Run ``orchestrator ARGS`` with its output in ``log``."""
        with self._starting:
            known = len(self._pids)
            self._socket.sendall(json.dumps({"args": list(args), "env": dict(env), "log": str(log)}).encode() + b"\n")
            with self._answered:
                assert self._answered.wait_for(lambda: len(self._pids) > known, timeout=60), "no process was forked"
            return ForkedChild(self, self._pids[-1])

    def close(self) -> None:
        """End it; its children must have ended before."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait(20)
        self._socket.close()

    def _listen(self) -> None:
        with self._socket.makefile("r") as lines:
            for line in lines:
                told = json.loads(line)
                with self._answered:
                    if "code" in told:
                        self.ended[told["pid"]] = told["code"]
                    else:
                        self._pids.append(told["pid"])
                    self._answered.notify_all()


def serve(control: socket.socket) -> None:
    """Fork whatever is asked for, tell of every end, until the other side hangs up."""
    for module in _IMPORTED_BEFORE:
        import_module(module)
    gc.freeze()  # or its collection would copy every page that they share
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    waiting = b""
    while True:
        ready, _, _ = select.select([control.fileno(), wakes], [], [])
        if wakes in ready:
            os.read(wakes, 4096)
            _tell_ends(control)
        if control.fileno() in ready:
            chunk = control.recv(65_536)
            if not chunk:
                return
            *orders, waiting = (waiting + chunk).split(b"\n")
            for order in orders:
                pid = os.fork()
                if pid == 0:
                    control.close()
                    _become(json.loads(order))
                control.sendall(json.dumps({"pid": pid}).encode() + b"\n")


def _tell_ends(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.sendall(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def _become(order: Mapping[str, object]) -> None:
    """Be ``orchestrator ARGS`` from here on; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()  # a Ctrl-C in the terminal is for the tests, not for what they started
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        faulthandler.register(signal.SIGUSR1)  # says in the log what every thread is at: for a test that fails
        os.environ.clear()
        os.environ.update(order["env"])  # type: ignore[call-overload]  # text to text, as it was sent
        from orchestrator.cli import main

        code = main(order["args"])  # type: ignore[arg-type]  # a list of text, as it was sent
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        serve(given)
