"""Running one program to its end, or to a deadline or a stop, with its whole process group."""

from __future__ import annotations

import atexit
import os
import selectors
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from orchestrator.errors import ExecutionError
from orchestrator.ports.executor import Order
from workers.executors.bounded_output import BoundedOutput
from workers.supervision.child import Purpose, SupervisedChild, start_child
from workers.supervision.group import end_group, ended_well, has_ended, live_members, signal_group
from workers.supervision.launch import Launch, start_failure
from workers.supervision.token import named_process

STOP_GRACE_S = 3.0
"""Longest grace once a worker stops: its whole stop takes at most 15 s (CONTRACT section 6)."""

_LOOK_S = 0.05
_STRAGGLERS_S = 0.2
_LAST_LOOK_S = 0.005
"""Once the pipe is closed the program is most likely about to end."""
_CHUNK = 64 * 1024
_LAST_CHUNKS = 64
"""Bounds what is read after the end: a program that left the group may hold the pipe and write for ever."""


class Ended(StrEnum):
    """What ended a run."""

    ITSELF = "itself"
    DEADLINE = "deadline"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it. ``returncode`` as subprocess has it (negative: a signal), None if it could not be ended.

    ``left`` names pids of the group that could not be ended: normally none. ``background`` names what ran on in it
    after a good end and was left alone, ``swept`` what was ended because the program had ended badly.
    """

    ended: Ended
    returncode: int | None
    output: str
    left: list[int]
    background: Sequence[str] = ()
    swept: Sequence[str] = ()
    is_unread: bool = False
    """Something in the background still has the output that was read until now."""


@dataclass(frozen=True)
class RecordedUnder:
    """Where the commands that run are on record, and the name of their worker.

    Whoever ends them, should this process die, looks there. Without a folder one is made that ends with the process.
    """

    directory: Path | None = None
    worker: str = ""

    def folder(self) -> Path:
        """Return the folder, which is there."""
        return self.directory or _own_folder()

    def purpose(self, order: Order) -> Purpose:
        """Return what a command of this order is for."""
        return Purpose(workspace=order.workspace, cycle=order.cycle, fence=order.fence, worker=self.worker)


@cache
def _own_folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="orchestrator-commands-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def run(
    launch: Launch,
    order: Order,
    under: RecordedUnder,
    *,
    deadline_s: float,
    stopped: Callable[[], bool],
    keeps_background: bool = False,
) -> Run:
    """Start the program and return when it and its group have ended. It is on record for all of that time.

    ``deadline_s`` is on ``time.monotonic()``. What a program leaves behind in its group is
    ended too, unless ``keeps_background`` and it ended with exit code 0; what moved into a session of its own (a
    daemon) never is.
    Raises ``PermanentError`` or ``TransientError`` if it cannot be started.
    """
    try:
        reader, writer = os.pipe()
    except OSError as error:
        raise start_failure(launch.argv[0], error) from error
    os.set_blocking(reader, False)
    pump = _Pump(reader, launch.hidden)
    try:
        try:
            child = _start(launch, order, under, writer)
        finally:
            os.close(writer)
        return _finish(child, pump, deadline_s, stopped, keeps_background=keeps_background)
    finally:
        pump.close()
        os.close(reader)


def _start(launch: Launch, order: Order, under: RecordedUnder, output: int) -> SupervisedChild:
    started: list[SupervisedChild] = []
    try:
        start_child(under.purpose(order), launch, under.folder(), output=output, on_record=started.append)
    except ExecutionError:
        for child in started:
            child.end(grace_s=0, hurried=lambda: True)
        raise
    return started[0]


def _finish(
    child: SupervisedChild, pump: _Pump, deadline_s: float, stopped: Callable[[], bool], *, keeps_background: bool
) -> Run:
    ended, rest, is_kept = Ended.STOP, list[str](), False
    left: list[int] = []
    try:
        ended = _await_end(child, pump, deadline_s, stopped)
        rest = _rest_of(child, pump) if ended is Ended.ITSELF else []
        is_kept = keeps_background and ended is Ended.ITSELF and ended_well(child.pid)
        if not is_kept:
            left = _end_rest(child, pump, ended, stopped)
    finally:
        if not is_kept:
            signal_group(child.pid, signal.SIGKILL)
        returncode = child.reap() if child.pid not in left else None
    pump.drain()
    background, swept = (rest, ()) if is_kept else ((), rest)
    return Run(
        ended=ended,
        returncode=returncode,
        output=pump.output.text(),
        left=left,
        background=background,
        swept=swept,
        is_unread=bool(background) and pump.is_open,
    )


def _rest_of(child: SupervisedChild, pump: _Pump) -> list[str]:
    """Name what runs on in the group of a program that has ended; what only takes a moment to end is none of that."""
    until_s = time.monotonic() + _STRAGGLERS_S
    while (rest := live_members(child.pid)) and time.monotonic() < until_s:
        pump.pause(_LOOK_S)
    return [named_process(pid, child.launch.hidden) for pid in rest]


def _end_rest(child: SupervisedChild, pump: _Pump, ended: Ended, stopped: Callable[[], bool]) -> list[int]:
    stopping = ended is Ended.STOP
    return end_group(
        child.pid,
        grace_s=min(child.grace_s, STOP_GRACE_S) if stopping else child.grace_s,
        hurried=(lambda: False) if stopping else stopped,
        pause=pump.pause,
        stop_signal=child.launch.stop_signal,
    )


def _await_end(child: SupervisedChild, pump: _Pump, deadline_s: float, stopped: Callable[[], bool]) -> Ended:
    while not has_ended(child.pid):
        if stopped():
            return Ended.STOP
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return Ended.DEADLINE
        pump.read(min(left_s, _LOOK_S if pump.is_open else _LAST_LOOK_S))
    return Ended.ITSELF


class _Pump:
    """Reads the pipe while somebody waits, so that no program ever blocks on a full one."""

    def __init__(self, reader: int, hidden: Sequence[str]) -> None:
        self.output = BoundedOutput(hidden)
        self._selector = selectors.DefaultSelector()
        self._selector.register(reader, selectors.EVENT_READ)
        self.is_open = True
        self._reader = reader

    def read(self, longest_s: float) -> bool:
        """Read one piece, waiting for it at most so long. Returns whether there was one."""
        if not self._selector.select(longest_s):
            return False
        piece = os.read(self._reader, _CHUNK)
        if not piece:
            self._selector.unregister(self._reader)
            self.is_open = False
        self.output.feed(piece)
        return bool(piece)

    def pause(self, span_s: float) -> None:
        """Wait so long, reading."""
        until_s = time.monotonic() + span_s
        while (left_s := until_s - time.monotonic()) > 0:
            self.read(left_s)

    def drain(self) -> None:
        """Read what is there, without waiting."""
        for _ in range(_LAST_CHUNKS):
            if not self.read(0):
                return

    def close(self) -> None:
        self._selector.close()
