"""The children of ``orchestrator up --watch``: one process group a workspace, kept alive until told otherwise."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from orchestrator.errors import ExecutionCancelled
from workers.supervision.child import ChildEnd
from workers.supervision.keeper import Backoff, OnExit, ProcessKeeper
from workers.supervision.launch import Launch
from workers.supervision.record import end_orphans
from workers.supervision.token import signal_carrier

_JOIN_MARGIN_S = 5.0
"""On top of the grace: a KILL, a reaping, a report that writes to the database."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChildStatus:
    """A workspace's child at one moment. ``identity`` is ``pid:start``, which no other child of this boot has."""

    identity: str
    is_alive: bool
    lived_s: float


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """What a restart did beside the start: ``escaped`` names what had left the old child's group and was ended too."""

    escaped: Sequence[str] = ()


class ProcessSupervisor:
    """Owns at most one child a workspace. Methods may be called from any thread.

    A child leads a session of its own, reads nothing unless its launch says so, and writes to ``output`` (None: our own
    stdout and stderr). It is ended with its whole group, and
    with what left that: its stop signal, its grace, KILL. One that
    ends by itself is told to ``on_exit`` (from a thread of ours) and started again after ``backoff``.
    ``directory`` holds one record a child; groups that an earlier run left there are ended
    first (CONTRACT section 7), which may take their grace. Two supervisors must not share it.
    Raises ``PermanentError`` if such an orphan cannot be ended.
    """

    def __init__(
        self, directory: Path, on_exit: OnExit, *, backoff: Backoff | None = None, output: int | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        end_orphans(directory)
        self._directory = directory
        self._on_exit = on_exit
        self._backoff = backoff or Backoff()
        self._output = output
        self._lock = threading.Lock()
        self._keepers: dict[str, ProcessKeeper] = {}
        self._closed = False

    def restart(
        self, workspace: str, launch: Launch, *, deadline_s: float, stopped: Callable[[], bool] = lambda: False
    ) -> Restarted:
        """End the workspace's child, if it has one, and start another; returns once its program runs.

        A pending start after a backoff is overtaken. ``deadline_s`` is on ``time.monotonic()``.
        Past it the old child is killed, the new one is started all the same, and
        ``ReadinessTimeout`` is raised. Once ``stopped`` says so the old one is killed, nothing is
        started, and ``ExecutionCancelled`` is raised. Raises ``PermanentError`` if the program cannot be
        started, ``TransientError`` if it may be later: then that is tried meanwhile, as after an end by itself.
        """
        ended = self._keeper(workspace).replace(launch, deadline_s=deadline_s, stopped=stopped)
        return Restarted(escaped=ended.escaped if ended is not None else ())

    def signal(self, workspace: str, signum: int) -> str | None:
        """Send the workspace's child (itself, not its group) a signal. Returns its identity; None: it has none."""
        keeper = self._keepers.get(workspace)
        child = keeper.child if keeper is not None else None
        if child is None or child.has_ended:
            return None
        signal_carrier(child.pid, child.token, signum)
        return child.identity

    def first_end(self, workspace: str) -> ChildEnd | None:
        """Return how the child that the last restart started ended, whatever was started since; None: it has not."""
        keeper = self._keepers.get(workspace)
        return keeper.first_end if keeper is not None else None

    @property
    def is_closed(self) -> bool:
        """True once nothing is started any more."""
        return self._closed

    def start_no_more(self) -> None:
        """Start nothing any more, whoever asks. Takes no lock: a signal handler may call it."""
        self._closed = True

    def begin_close(self, by_s: float = math.inf) -> None:
        """Tell all children at once to end, each within its own grace, and start none any more; see ``close``.

        Past ``by_s``, an instant of ``time.monotonic()``, all graces are over.
        """
        with self._lock:
            self._closed = True
            keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.close(by_s)

    def status(self, workspace: str) -> ChildStatus | None:
        """Return what is known of the workspace's child, or None if it has none (also between two starts)."""
        keeper = self._keepers.get(workspace)
        child = keeper.child if keeper is not None else None
        if child is None:
            return None
        return ChildStatus(
            identity=child.identity, is_alive=not child.has_ended, lived_s=time.monotonic() - child.started_s
        )

    def stop(self, workspace: str) -> None:
        """End the workspace's child and forget the workspace; nothing if it has none."""
        with self._lock:
            keeper = self._keepers.get(workspace)
        if keeper is None:
            return
        self._end([keeper], math.inf)
        with self._lock:
            self._keepers.pop(workspace, None)

    def close(self, grace_s: float | None = None) -> None:
        """End all children at once and start none any more. ``grace_s`` shortens their graces.

        Returns when no child and no thread is left, at the latest a little after the longest grace. Again: at once.
        """
        with self._lock:
            self._closed = True
            keepers = list(self._keepers.values())
        self._end(
            keepers, math.inf if grace_s is None else time.monotonic() + grace_s
        )  # still listed meanwhile: kill_now must find them
        self._keepers.clear()

    def kill_now(self) -> None:
        """KILL every group at once, wait for nothing. Takes no lock: a signal handler may call it."""
        self._closed = True
        for keeper in list(self._keepers.values()):
            keeper.kill_now()

    def _keeper(self, workspace: str) -> ProcessKeeper:
        with self._lock:
            if self._closed:
                raise ExecutionCancelled(f"{workspace!r} is not restarted: the supervisor is closed")
            keeper = self._keepers.get(workspace)
            if keeper is None:
                record = self._directory / f"{workspace}.json"
                keeper = ProcessKeeper(
                    workspace,
                    record,
                    on_exit=self._on_exit,
                    backoff=self._backoff,
                    output=self._output,
                    may_start=lambda: not self._closed,
                )
                self._keepers[workspace] = keeper
            return keeper

    @staticmethod
    def _end(keepers: list[ProcessKeeper], by_s: float) -> None:
        longest_s = 0.0
        for keeper in keepers:
            child = keeper.child
            longest_s = max(longest_s, child.grace_s if child is not None else 0.0)
            keeper.close(by_s)
        until_s = min(time.monotonic() + longest_s, by_s) + _JOIN_MARGIN_S
        for keeper in keepers:
            if not keeper.join(max(0.0, until_s - time.monotonic())):
                _log.error("keeper_left", workspace=keeper.workspace)
