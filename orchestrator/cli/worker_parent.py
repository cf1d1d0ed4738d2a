"""``orchestrator worker``: a small parent, and the worker as its child.

A dead process is known at once only to its parent. This one imports neither Celery nor the executors: what kills
a worker (its memory, its code, its threads) leaves it alone. It tells its child to stop over a pipe, never by a signal,
and a child whose pipe closes (the parent is gone) stops by itself. A child that dies: what its commands left is ended,
its cycles are abandoned as ``worker_died``, another child is started. One that is alive but deaf is never called dead.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import structlog

from orchestrator import crash_points
from orchestrator.cli.lifecycle import ENDED_AT_ONCE, STOP_MOST_S
from orchestrator.errors import InvalidInput, OrchestratorError, PermanentError, Unavailable
from orchestrator.logs import flush_logs
from orchestrator.settings import Settings
from workers.supervision.command_folder import CommandFolder, common_folder
from workers.supervision.record import kill_commands
from workers.supervision.worker_name import new_token, worker_name

_log = structlog.get_logger("orchestrator")

_SETTLED_AFTER_S = 5.0
"""A child that has lived so long started well; deaths in a row are those of children that had not."""
_DEATHS_MOST = 6
"""After so many deaths in a row the parent gives up with exit code 1, so that what supervises it sees that."""
_LONGEST_PAUSE_S = 8.0
_USED_WRONGLY = 2
_TRY_AGAIN_S = 0.5
_LOOK_AGAIN_S = 0.2
_LAST_WAIT_S = 0.7
_LAST_LINES_S = 0.2
_COMMITTED_BY_S = 1.5
"""A commit that a dying child had sent may come after its death: its cycles are looked for once more then."""
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a child is told at its birth: its name, where its commands are on record, the pipe that tells it to stop."""

    worker: str
    folder: CommandFolder
    stop_pipe: int


def require_broker(settings: Settings) -> None:
    """Raise ``InvalidInput`` where no other process could reach the broker."""
    if settings.broker_url.startswith("memory://"):
        raise InvalidInput(
            "ORCHESTRATOR_BROKER_URL is memory://, which no other process can reach; set it to redis://HOST:PORT/0, "
            "or use `orchestrator up`, which runs everything in one process"
        )


def require_shared_database(settings: Settings) -> None:
    """Raise ``InvalidInput`` where the database is not named, cannot be one, or is SQLite, which is for one process."""
    from orchestrator.storage.urls import SQLITE, database_url  # here: what is used wrongly need not wait for it

    settings.require_named_database()
    if database_url(settings.url).get_backend_name() == SQLITE:
        raise InvalidInput(
            "ORCHESTRATOR_DATABASE_URL is SQLite, which is for one process; set it to postgresql://USER@HOST/NAME, or"
            " use `orchestrator up`, which runs everything in one process"
        )


def supervise_worker(settings: Settings) -> Assignment | int:
    """Start a child and stand by it. Returns twice: the ``Assignment`` in each child, the exit code in the parent."""
    become_subreaper()
    folder = CommandFolder(settings.commands_dir or common_folder())
    folder.end_left_ones()
    return _Parent(settings, folder).run()


def become_subreaper() -> None:
    """Have what our descendants leave behind come to us and not to init. Source: prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class _Parent:
    def __init__(self, settings: Settings, folder: CommandFolder) -> None:
        self._settings, self._folder = settings, folder
        self._child, self._worker, self._pipe = 0, "", -1
        self._began_s = 0.0
        self._stop_by_s: float | None = None
        self._deaths = 0
        self._look_again: tuple[str, float] | None = None
        self._wakes, self._wake = os.pipe()
        for end in (self._wakes, self._wake):
            os.set_blocking(end, False)
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def run(self) -> Assignment | int:
        """Be the parent of one child after another; see ``supervise_worker``."""
        while True:
            assignment = self._begin()
            if assignment is not None:
                return assignment
            _load_what_a_burial_needs()
            code = self._await_end()
            if self._stop_by_s is not None:
                return self._ended_in_order(code)
            if code == _USED_WRONGLY and not self._deaths:
                return self._over(code)  # it refused its settings or its database, and said so
            self._mourn(code)
            self._bury()
            if self._deaths >= _DEATHS_MOST:
                _log.error("worker.given_up", deaths=self._deaths, why="each child died soon after its start")
                return self._over(1)
            if not self._pause():
                return self._over(0)

    @property
    def _lived_s(self) -> float:
        return time.monotonic() - self._began_s

    def _begin(self) -> Assignment | None:
        """Fork, which is safe in a process with one thread; return the assignment in the child, None in the parent."""
        reader, writer = os.pipe()
        token = new_token()
        pid = os.fork()
        if pid == 0:
            return self._be_the_child(token, reader, writer)
        os.close(reader)
        self._child, self._pipe, self._began_s = pid, writer, time.monotonic()
        self._worker = worker_name(token, pid)
        os.environ.pop(crash_points.VARIABLE, None)  # a drill has one end: the next child goes on
        _log.info("worker.child_started", worker=self._worker)
        return None

    def _be_the_child(self, token: str, reader: int, writer: int) -> Assignment:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, before in self._before.items():
            signal.signal(number, before)
        os.setsid()  # a Ctrl-C in the terminal is for the parent, which tells us over the pipe
        for end in (writer, self._wakes, self._wake):
            os.close(end)
        return Assignment(worker=worker_name(token), folder=self._folder, stop_pipe=reader)

    def _await_end(self) -> int:
        """Wait for the child's end and reap what comes to us meanwhile; return its exit code, negative for a signal."""
        while (status := self._reap()) is None:
            if self._stop_by_s is not None and time.monotonic() > self._stop_by_s:
                os.kill(self._child, signal.SIGKILL)
            self._look_again_if_due()
            self._wait(_LOOK_AGAIN_S if self._stop_by_s is not None else self._until_look_again_s())
        os.close(self._pipe)
        self._pipe = -1
        return os.waitstatus_to_exitcode(status)

    def _reap(self) -> int | None:
        status: int | None = None
        while True:
            try:
                pid, found = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if pid == 0:
                return status
            if pid == self._child:
                status = found

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for a signal or the time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakes, selectors.EVENT_READ)
            if selector.select(timeout_s):
                os.read(self._wakes, 4096)
        if self._stop_by_s is not None and self._pipe >= 0:
            _tell_to_stop(self._pipe)

    def _mourn(self, code: int) -> None:
        lived_s = self._lived_s
        self._deaths = 1 if lived_s >= _SETTLED_AFTER_S else self._deaths + 1
        _log.error("worker.died", worker=self._worker, code=code, lived_s=round(lived_s, 1), deaths=self._deaths)

    def _bury(self) -> None:
        """End what the dead child's commands left, then abandon its cycles; try again while the database is away."""
        try:
            self._folder.end_commands()
        except PermanentError as error:
            _log.error("worker.commands_left", worker=self._worker, error=str(error), then="its leases run out")
            return
        while self._stop_by_s is None:
            try:
                _abandon_cycles_of(self._settings.url, self._worker)
            except Unavailable as error:
                _log.warning("worker.not_buried", worker=self._worker, error=str(error))
            except OrchestratorError as error:
                _log.error("worker.not_buried", worker=self._worker, error=str(error), then="its leases run out")
                return
            else:
                self._look_again = (self._worker, time.monotonic() + _COMMITTED_BY_S)
                return
            self._wait(_TRY_AGAIN_S)

    def _until_look_again_s(self) -> float | None:
        return None if self._look_again is None else max(0.0, self._look_again[1] - time.monotonic())

    def _look_again_if_due(self) -> None:
        """Abandon what a child that is buried had begun with its last breath; what fails is left to its lease."""
        if self._look_again is None or time.monotonic() < self._look_again[1]:
            return
        worker, self._look_again = self._look_again[0], None
        try:
            _abandon_cycles_of(self._settings.url, worker)
        except OrchestratorError as error:
            _log.warning("worker.not_buried", worker=worker, error=str(error), then="its leases run out")

    def _pause(self) -> bool:
        """Wait before the next child if deaths come in a row; return whether there is to be one."""
        until_s = time.monotonic() + (min(_LONGEST_PAUSE_S, 2.0 ** (self._deaths - 2)) if self._deaths > 1 else 0.0)
        while self._stop_by_s is None and (left_s := until_s - time.monotonic()) > 0:
            self._wait(left_s)
        return self._stop_by_s is None

    def _ended_in_order(self, code: int) -> int:
        kill_commands(self._folder.path)  # normally none: a child that was told to stop has ended them
        return self._over(code if code >= 0 else ENDED_AT_ONCE)

    def _over(self, code: int) -> int:
        self._folder.remove()
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Take the first signal as a wish to stop; end at once at the second."""
        if self._stop_by_s is None:
            self._stop_by_s = time.monotonic() + STOP_MOST_S + _LAST_WAIT_S
            return
        if self._pipe >= 0:
            os.kill(self._child, signal.SIGKILL)
        kill_commands(self._folder.path)
        flush_logs(_LAST_LINES_S)
        os._exit(ENDED_AT_ONCE)


def _tell_to_stop(pipe: int) -> None:
    try:
        os.write(pipe, b"s")
    except BrokenPipeError:
        return  # it has ended by itself


def _load_what_a_burial_needs() -> None:
    """Import it while the child starts, so that nobody waits for that when it has died. Not Celery."""
    import orchestrator.service.dead_worker
    import orchestrator.storage.opening  # noqa: F401


def _abandon_cycles_of(url: str, worker: str) -> None:
    from orchestrator.service.dead_worker import abandon_cycles_of
    from orchestrator.storage.opening import open_store
    from orchestrator.time_ordered_ids import TimeOrderedIds

    store = open_store(url)
    try:
        abandon_cycles_of(store, TimeOrderedIds(), worker)
    finally:
        store.close()


Stop = Callable[[], None]


def follow_pipe(pipe: int, stop: Stop) -> None:
    """Call ``stop`` once the parent says so, or is gone. For a thread of the child."""
    os.read(pipe, 1)
    stop()
