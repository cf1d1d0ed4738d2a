"""One server process under a test's control: it can be stopped, killed, frozen and started again."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import psutil

from tests.waiting import wait_until

LOOPBACK = "127.0.0.1"
_PORTS_TO_TRY = 5
_STOP_TIMEOUT_S = 20.0


class User(TypedDict, total=False):
    """Arguments of ``Popen`` that drop root."""

    user: int
    group: int
    extra_groups: list[int]


def dropped_root() -> User:
    """Return how to run as ``postgres`` or ``nobody`` if this is root, else nothing: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = known.get("postgres") or known["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess(ABC):
    """A server on a loopback port of its own, which it keeps over ``stop`` and ``start``."""

    stop_signal: signal.Signals
    run_as: User = {}  # noqa: RUF012 (never changed)
    starts_within_s = 20.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line that serves ``self.port``."""

    def environment(self) -> Mapping[str, str] | None:
        """Return the variables of the process; None: those of the tests."""
        return None

    @abstractmethod
    def answers(self) -> bool:
        """Say whether the server takes requests, within a second or so."""

    @property
    def running(self) -> bool:
        """True from ``start`` until the process has ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; an error if there is no process."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> None:
        """Start, and return when requests are answered."""
        assert not self.running, "the server runs already"
        ports = [self.port] if self.port else [free_port() for _ in range(_PORTS_TO_TRY)]
        if not any(self._started_on(port) for port in ports):
            raise AssertionError(f"{type(self).__name__} did not start; its log ends:\n{self._end_of_log()}")

    def stop(self) -> None:
        """End it in its own orderly way, and return when it has ended."""
        if self.running:
            self.resume()
            self._end(self.stop_signal)

    def kill(self) -> None:
        """End it and all its children at once, as a power cut would: ``kill -9``."""
        if self.running:
            self.pause()  # so that it starts no new child while its children are killed
            children = psutil.Process(self.pid).children(recursive=True)
            for child in children:
                child.kill()
            self._end(signal.SIGKILL)
            psutil.wait_procs(children, timeout=_STOP_TIMEOUT_S)  # the next start refuses to share memory with them

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._signal_all(signal.SIGCONT)

    def _started_on(self, port: int) -> bool:
        """Start on ``port``; False if the process ended, as it does when somebody else took the port."""
        self.port = port
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for the tests, not for their servers
                **self.run_as,
            )
        self._process = process
        wait_until(
            lambda: process.poll() is not None or self.answers(),
            timeout_s=self.starts_within_s,
            what=f"{type(self).__name__} answers on port {port}",
        )
        return process.poll() is None

    def _signal_all(self, number: signal.Signals) -> None:
        parent = psutil.Process(self.pid)
        parent.send_signal(number)
        for child in parent.children(recursive=True):
            try:
                child.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # a session that ended meanwhile

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(_STOP_TIMEOUT_S)

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]
