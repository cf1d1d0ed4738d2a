"""The children of ``orchestrator up --watch``: one process group a workspace, kept alive until told otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from orchestrator.errors import ExecutionCancelled
from workers.supervision.keeper import Backoff, OnExit, ProcessKeeper
from workers.supervision.launch import Launch
from workers.supervision.record import end_orphans

_JOIN_MARGIN_S = 5.0
"""On top of the grace: a KILL, a reaping, a report that writes to the database."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChildStatus:
    """A workspace's child at one moment. ``identity`` is ``pid:start``, which no other child of this boot has."""

    identity: str
    is_alive: bool
    lived_s: float


class ProcessSupervisor:
    """Owns at most one child a workspace. Methods may be called from any thread.

    A child leads a session of its own, reads nothing, and writes to ``output`` (None: our own
    stdout and stderr). It is ended with its whole group: TERM, its grace, KILL. One that
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
    ) -> None:
        """End the workspace's child, if it has one, and start another; returns once its program runs.

        A pending start after a backoff is overtaken. ``deadline_s`` is on ``time.monotonic()``.
        Past it the old child is killed, the new one is started all the same, and
        ``ReadinessTimeout`` is raised. Once ``stopped`` says so the old one is killed, nothing is
        started, and ``ExecutionCancelled`` is raised. Raises ``PermanentError`` or
        ``TransientError`` if the program cannot be started.
        """
        self._keeper(workspace).replace(launch, deadline_s=deadline_s, stopped=stopped)

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
        self._end([keeper], None)
        with self._lock:
            self._keepers.pop(workspace, None)

    def close(self, grace_s: float | None = None) -> None:
        """End all children at once and start none any more. ``grace_s`` shortens their graces.

        Returns when no child and no thread is left, at the latest a little after the longest grace.
        """
        with self._lock:
            self._closed = True
            keepers = list(self._keepers.values())
        self._end(keepers, grace_s)  # still listed meanwhile: kill_now must find them
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
                    workspace, record, on_exit=self._on_exit, backoff=self._backoff, output=self._output
                )
                self._keepers[workspace] = keeper
            return keeper

    @staticmethod
    def _end(keepers: list[ProcessKeeper], grace_s: float | None) -> None:
        longest_s = 0.0
        for keeper in keepers:
            child = keeper.child
            longest_s = max(longest_s, child.grace_s if child is not None else 0.0)
            keeper.close(grace_s)
        if grace_s is not None:
            longest_s = min(longest_s, grace_s)
        until_s = time.monotonic() + longest_s + _JOIN_MARGIN_S
        for keeper in keepers:
            if not keeper.join(max(0.0, until_s - time.monotonic())):
                _log.error("keeper_left", workspace=keeper.workspace)
