"""The thread that keeps the child of one workspace alive, and replaces it when told to."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from orchestrator.errors import (
    ExecutionCancelled,
    ExecutionError,
    PermanentError,
    ReadinessTimeout,
    TransientError,
)
from workers.supervision.child import ChildEnd, Purpose, SupervisedChild, start_child
from workers.supervision.launch import Launch

OnExit = Callable[[str, int | None, int | None, int], None]
"""``(workspace, exit_code, signal, respawn_after_ms)`` of a child that ended by itself."""

_LOOK_S = 0.05
_CANNOT_RUN = 127

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long after its end a child is started again: ``first_s``, doubling to ``longest_s``.

    Starts over once a child has lived ``longest_s``.
    """

    first_s: float = 1.0
    longest_s: float = 30.0

    def after(self, failures: int) -> float:
        """Return the pause before the start that follows so many failures (1 or more)."""
        return min(self.longest_s, self.first_s * (1 << min(failures - 1, 30)))


@dataclass(eq=False, kw_only=True)
class _Replacement:
    """A restart that somebody waits for."""

    launch: Launch
    deadline_s: float
    stopped: Callable[[], bool]
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    ended: ChildEnd | None = None

    def is_pressed(self) -> bool:
        return self.stopped() or time.monotonic() >= self.deadline_s


class ProcessKeeper:
    """Owns one child from its start to its reaping; everything about it happens in this one thread."""

    def __init__(
        self,
        workspace: str,
        record: Path,
        *,
        on_exit: OnExit,
        backoff: Backoff,
        output: int | None,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.workspace = workspace
        self.child: SupervisedChild | None = None
        self.first_end: ChildEnd | None = None
        """How the child that the last restart started ended; None: it has not."""
        self._may_start = may_start
        self._record = record
        self._on_exit = on_exit
        self._backoff = backoff
        self._output = output
        self._wake = threading.Condition()
        self._replacement: _Replacement | None = None
        self._closing = False
        self._close_by_s = math.inf
        self._kill_now = False
        self._launch: Launch | None = None
        self._failures = 0
        self._respawn_s: float | None = None
        self._is_respawn = False
        self._ran: tuple[str, str | None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeper {workspace}", daemon=True)
        self._thread.start()

    def replace(self, launch: Launch, *, deadline_s: float, stopped: Callable[[], bool]) -> ChildEnd | None:
        """End the child, if there is one, and start another. See ``ProcessSupervisor.restart``."""
        replacement = _Replacement(launch=launch, deadline_s=deadline_s, stopped=stopped)
        with self._wake:
            if self._closing:
                raise ExecutionCancelled(f"{self.workspace!r} is not restarted: its supervisor is closing")
            overtaken, self._replacement = self._replacement, replacement
            self._wake.notify()
        if overtaken is not None:
            self._answer(overtaken, ExecutionCancelled(f"a later restart of {self.workspace!r} took over"))
        while not replacement.done.wait(_LOOK_S):
            if replacement.is_pressed():
                self._withdraw(replacement)
        if replacement.error is not None:
            raise replacement.error
        return replacement.ended

    def close(self, by_s: float) -> None:
        """Tell the thread to end the child, within its own grace, and then itself; see ``join``.

        Past ``by_s``, an instant of ``time.monotonic()``, the grace is over.
        """
        with self._wake:
            self._closing = True
            self._close_by_s = min(self._close_by_s, by_s)
            self._wake.notify()

    def join(self, longest_s: float) -> bool:
        """Wait for the thread. Returns whether it has ended."""
        self._thread.join(longest_s)
        return not self._thread.is_alive()

    def kill_now(self) -> None:
        """KILL the group and start nothing any more. Takes no lock: a signal handler may call it."""
        self._kill_now = self._closing = True
        child = self.child
        if child is not None:
            child.kill()

    def _run(self) -> None:
        while not self._closing:
            with self._wake:
                if self._replacement is None and not self._closing:
                    self._wake.wait(self._longest_wait_s())
                replacement, self._replacement = self._replacement, None
            if replacement is not None:
                self._carry_out(replacement)
            elif not self._closing:
                self._look_after()
        with self._wake:
            replacement, self._replacement = self._replacement, None
        if replacement is not None:
            self._answer(replacement, ExecutionCancelled(f"the supervisor of {self.workspace!r} is closing"))
        self._end_last()

    def _longest_wait_s(self) -> float | None:
        if self.child is not None:
            return _LOOK_S
        return None if self._respawn_s is None else max(0.0, self._respawn_s - time.monotonic())

    def _look_after(self) -> None:
        """Report a child that has ended by itself, or start it again when its pause is over."""
        try:
            if self.child is not None and self.child.has_ended:
                self._after_exit(self.child)
            elif self.child is None and self._respawn_s is not None and time.monotonic() >= self._respawn_s:
                self._respawn()
        except (ExecutionError, OSError) as error:  # an undead process, a full disk: tried again after a pause
            _log.warning("respawn_failed", workspace=self.workspace, error=str(error))
            self._schedule_respawn()

    def _after_exit(self, child: SupervisedChild) -> None:
        ended = self._end(child, child.grace_s, self._is_hurried)
        if self._closing or not self._may_start():
            return  # whoever told us to stop may have told the child too: that is no crash
        is_done = ended.exit_code == 0 and not self._is_respawn and ended.lived_s < child.launch.done_within_s
        if child.launch.once or is_done:
            _log.info("child.done", workspace=self.workspace, ended=ended.said, next="with the next write")
            return
        if ended.lived_s >= self._backoff.longest_s:
            self._failures = 0
        pause_s = self._schedule_respawn()
        if ended.exit_code == 0:
            hint = "started again; a command that is to end is run with --once (target: once)"
            _log.warning("child.ended", workspace=self.workspace, ended=ended.said, next=hint)
        self._report(ended.exit_code, ended.signal, pause_s)

    def _respawn(self) -> None:
        if self._launch is None or not self._may_start():
            self._respawn_s = None
            return
        try:
            self._start(self._launch, is_respawn=True)
        except PermanentError as error:  # the program has gone since it was first started
            _log.warning("respawn_failed", workspace=self.workspace, error=str(error))
            self._report(_CANNOT_RUN, None, self._schedule_respawn())

    def _schedule_respawn(self) -> float:
        self._failures += 1
        pause_s = self._backoff.after(self._failures)
        self._respawn_s = time.monotonic() + pause_s
        return pause_s

    def _report(self, code: int | None, signum: int | None, pause_s: float) -> None:
        try:
            self._on_exit(self.workspace, code, signum, round(pause_s * 1000))
        except Exception:  # noqa: BLE001 (a reporter that fails must not leave the workspace without its child)
            _log.exception("exit_not_reported", workspace=self.workspace, exit_code=code, signal=signum)

    def _carry_out(self, replacement: _Replacement) -> None:
        try:
            self._replace_child(replacement)
        except Exception as error:  # noqa: BLE001 (raised again in the thread that waits for it)
            self._answer(replacement, error)
        else:
            self._answer(replacement, None)

    def _replace_child(self, replacement: _Replacement) -> None:
        if replacement.stopped():
            raise self._cancelled()
        old = self.child
        if old is not None:
            ended_by_itself = old.has_ended
            ended = self._end(old, old.grace_s, lambda: replacement.is_pressed() or self._is_hurried())
            replacement.ended = ended
            if ended_by_itself and not old.launch.once:
                self._report(ended.exit_code, ended.signal, 0)
        if replacement.stopped() or self._closing or not self._may_start():
            self._respawn_s = None
            raise self._cancelled()
        # Also past the deadline: a failed cycle must not leave the workspace without its process.
        late = time.monotonic() >= replacement.deadline_s
        self._launch, self._respawn_s, self._failures = replacement.launch, None, 0
        self._start_new(replacement.launch)
        if late:
            raise ReadinessTimeout(
                f"ending the old process of {self.workspace!r} took until the cycle's deadline; "
                "lower grace or raise cycle_timeout"
            )

    def _start_new(self, launch: Launch) -> None:
        """Start it. What cannot be started now, and ran before or may yet run, is tried again after a pause."""
        try:
            self._start(launch)
        except PermanentError as error:
            if self._ran != launch.program:
                raise
            # A build, or a package manager, replaces it: its old process has been ended, so nothing runs meanwhile.
            self._try_later(launch)
            raise TransientError(f"{error}; it ran before, so it is tried again meanwhile") from error
        except TransientError:
            self._try_later(launch)
            raise

    def _try_later(self, launch: Launch) -> None:
        if not launch.once:
            self._schedule_respawn()

    def _start(self, launch: Launch, *, is_respawn: bool = False) -> None:
        self._respawn_s, self._is_respawn = None, is_respawn
        if not is_respawn:
            self.first_end = None
        try:
            purpose = Purpose(workspace=self.workspace)
            start_child(purpose, launch, self._record, output=self._output, on_record=self._take)
        except ExecutionError:
            if self.child is not None:
                self._end(self.child, 0, lambda: True)
            raise
        self._ran = launch.program
        if self._kill_now and self.child is not None:
            self.child.kill()

    def _take(self, child: SupervisedChild) -> None:
        self.child = child

    def _end(self, child: SupervisedChild, grace_s: float, hurried: Callable[[], bool]) -> ChildEnd:
        ended = child.end(grace_s=grace_s, hurried=hurried)
        if not self._is_respawn:
            self.first_end = ended
        self.child = None
        if ended.escaped:
            _log.warning("child.escaped_ended", workspace=self.workspace, processes=ended.escaped)
        return ended

    def _is_hurried(self) -> bool:
        return self._kill_now or time.monotonic() >= self._close_by_s

    def _end_last(self) -> None:
        child = self.child
        if child is None:
            return
        try:
            self._end(child, child.grace_s, self._is_hurried)
        except ExecutionError as error:
            _log.error("child_left", workspace=self.workspace, pid=child.pid, error=str(error))

    def _withdraw(self, replacement: _Replacement) -> None:
        """Take back a restart that its deadline or stop overtook before the thread came to it."""
        with self._wake:
            if self._replacement is not replacement:
                return  # under way: it ends soon by itself, for it looks at the same deadline and stop
            self._replacement = None
        late = ReadinessTimeout(f"the supervisor of {self.workspace!r} was busy until the cycle's deadline")
        self._answer(replacement, self._cancelled() if replacement.stopped() else late)

    def _cancelled(self) -> ExecutionCancelled:
        return ExecutionCancelled(f"restart of {self.workspace!r} was cancelled: the worker stops or lost its lease")

    @staticmethod
    def _answer(replacement: _Replacement, error: Exception | None) -> None:
        replacement.error = error
        replacement.done.set()
