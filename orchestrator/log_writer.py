"""Log lines written beside everything else: whoever logs never waits for the terminal, the pipe or the disk.

A terminal that stands still (Ctrl-S, a pipe that nobody reads) used to stop whoever wrote to it: the API's event loop,
a tick, a worker's parent. Lines wait in a bounded queue for one thread; what does not fit is dropped and counted.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable

MOST_LINES = 10_000
MOST_CHARACTERS = 4 * 1024 * 1024
AT_AN_END_S = 1.0
"""How long an end waits for what is not written yet: no longer, since it may be that nobody reads."""

_BATCH_CHARACTERS = 32 * 1024
_BEFORE_A_FORK_S = 0.2
_GATHER_S = 0.02
"""So long lines gather after others were written. Waking the thread for each takes longer than making the line."""


class LogWriter:
    """Writes lines to standard error in their order, from a thread that the first one starts."""

    def __init__(self, *, most_lines: int = MOST_LINES, most_characters: int = MOST_CHARACTERS) -> None:
        self.lost_line: Callable[[int], str] = lambda lines: f"{lines} lines were lost\n"
        """Makes the line that says how many were lost; it comes where they would have come."""
        self._most_lines, self._most_characters = most_lines, most_characters
        self._reset()
        os.register_at_fork(before=self._end_thread, after_in_child=self._reset)

    def write(self, text: str) -> int:
        """Take one line. Never waits, never raises."""
        with self._changed:
            if self._lost or len(self._lines) >= self._most_lines or self._characters >= self._most_characters:
                self._lost += 1  # and all that come before the queue is empty: what is lost is in one place
                self._refused = False
            else:
                self._lines.append(text)
                self._characters += len(text)
            if self._thread is None:
                self._begin_thread()
            self._wake()
        return len(text)

    def flush(self, within_s: float = 0.0) -> bool:
        """Wait until everything is written, but no longer than that; return whether it is."""
        with self._changed:
            self._hurried += 1
            self._more.notify()
            try:
                return self._changed.wait_for(lambda: not self._busy and not self._has_work(), within_s)
            finally:
                self._hurried -= 1

    def _reset(self) -> None:
        """Begin with nothing: what a parent had not written yet when it forked is the parent's."""
        lock = threading.Lock()
        self._changed, self._more = threading.Condition(lock), threading.Condition(lock)
        """Told of what was written, and of what is to be."""
        self._waits = False
        """The thread has nothing to do; while it lets lines gather, nobody wakes it for each."""
        self._has_just_written = False
        self._hurried = 0
        self._lines: deque[str] = deque()
        self._characters = self._lost = 0
        self._refused = self._busy = self._ending = False
        self._thread: threading.Thread | None = None

    def _begin_thread(self) -> None:
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # too many threads, or the process is at its end: the next line tries again
            self._thread = None

    def _end_thread(self) -> None:
        """End the thread, so that the process has one less when it forks. One that stands still is left."""
        thread = self._thread
        if thread is None:
            return
        self.flush(_BEFORE_A_FORK_S)
        with self._changed:
            self._ending = True
            self._more.notify()
        thread.join(_BEFORE_A_FORK_S)
        self._ending = False

    def _has_work(self) -> bool:
        # A line that was refused (a full disk, a reader that is gone) is tried again when another one comes.
        return bool(self._lines) or (self._lost > 0 and not self._refused)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._await_work()
                if not self._has_work():
                    self._thread = None
                    return
                text, lines = self._next()
                self._busy = True
            is_written = _write_to_stderr(text)
            with self._changed:
                self._busy, self._has_just_written = False, True
                if not is_written:
                    self._lost += lines
                    self._refused = True
                self._changed.notify_all()

    def _wake(self) -> None:
        if self._waits:
            self._waits = False
            self._more.notify()

    def _await_work(self) -> None:
        """Wait for a line; the first one after a silence is written at once, those that follow gather for a moment."""
        if self._has_just_written and not self._lines:
            self._more.wait_for(lambda: self._ending or self._hurried > 0, _GATHER_S)
        while not (self._ending or self._has_work()):
            self._waits = True
            self._more.wait()
        self._waits = self._has_just_written = False

    def _next(self) -> tuple[str, int]:
        """Return what is to be written next, and for how many lines it stands."""
        if not self._lines:
            lost, self._lost = self._lost, 0
            return self.lost_line(lost), lost
        batch: list[str] = []
        size = 0
        while self._lines and size < _BATCH_CHARACTERS:
            batch.append(self._lines.popleft())
            size += len(batch[-1])
        self._characters -= size
        return "".join(batch), len(batch)


def _write_to_stderr(text: str) -> bool:
    """Write to where standard error is now, however long that takes; return whether it took it."""
    stream = sys.stderr
    try:
        place = stream.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file: a test's
        return write_text(text)
    try:
        left = memoryview(text.encode(stream.encoding, "backslashreplace"))
        while left:
            try:
                left = left[os.write(place, left) :]  # not the stream's own: it would keep a lock over a fork
            except BlockingIOError:  # somebody else who has this terminal made it so
                select.select([], [place], [])
    except OSError:
        return False
    return True


def write_text(text: str) -> bool:
    """Write to the stream that standard error is now; return whether it took it. Never raises."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # its reader is gone, its disk is full, it was closed, there is none
        return False
    return True
