"""Run until a signal: the first one stops in order, a second one ends at once; no stop takes longer than 15 s.

A closed terminal sends HUP, often more than one, and systemd may send one right after its TERM: it stops in order, and
never ends at once. One that was ignored at the start (nohup) stays ignored. QUIT ends at once.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import structlog

from orchestrator.logs import flush_logs

_log = structlog.get_logger("orchestrator")

STOP_MOST_S = 14.0
"""CONTRACT section 6: the whole stop takes at most 15 s; the last second is the process's own end."""

RUNNING_CYCLES_S = 10.0
"""How long running cycles may go on after the first signal."""

_LOOK_EVERY_S = 0.2
_CYCLES_MOST = 2_000
_LAST_LINES_S = 0.2
ENDED_AT_ONCE = 130
"""The exit code of a process that a second signal ended, as shells say it of Ctrl-C."""


class Part(Protocol):
    """Something that runs in a thread of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    @property
    def alive(self) -> bool:
        """False once it has ended, for whatever reason."""
        ...


def _leave_alone_what_lasts() -> None:
    """Tell the garbage collector that what there is now lives as long as the process, and to look less often.

    Looking at it again and again cost a tenth of a write (measured). What is made from here on is freed by its count;
    what has cycles of references waits until there are ``_CYCLES_MOST`` more things than there were. Not more: an error
    may hold a body of a megabyte, and with ten times as many 300 bad requests kept 88 MB (measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_CYCLES_MOST, 10, 10)


class Lifecycle:
    """Watches the parts of a process and its signals."""

    def __init__(self, *, at_once: Callable[[], None] = lambda: None) -> None:
        """``at_once`` must not block: it runs in the signal handler of the second signal."""
        self._at_once = at_once
        self._stop = threading.Event()
        self._signalled = self._may_end_at_once = False
        self._at_first: list[Callable[[], None]] = []
        signal.signal(signal.SIGQUIT, self._on_quit)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    @property
    def stopping(self) -> bool:
        """True after the first signal."""
        return self._signalled or self._stop.is_set()

    def stop(self) -> None:
        """Stop as after a first signal. May be called from any thread, but not from a signal handler."""
        self._stop.set()

    def at_first(self, call: Callable[[], None]) -> None:
        """Call this at the first signal, before anything else. It must take no lock: the signal's handler calls it."""
        self._at_first.append(call)
        if self.stopping:
            call()

    def run(self, parts: dict[str, Part], stop: Callable[[float], None]) -> int:
        """Wait for a signal or the end of a part, then call ``stop`` with the instant by which it must be over.

        Returns the exit code: 0 after a signal, 1 if a part had ended by itself (a supervisor starts us again).
        """
        _leave_alone_what_lasts()
        dead: list[str] = []
        while not self._signalled and not self._stop.wait(_LOOK_EVERY_S) and not dead:
            dead = [name for name, part in parts.items() if not part.alive]
        if dead:
            _log.error("process.part_ended", parts=dead)
        _log.info("process.stopping", at_most_s=STOP_MOST_S, now="a second signal ends at once")
        until_s = time.monotonic() + STOP_MOST_S
        overdue = threading.Timer(STOP_MOST_S, self._end_at_once)
        overdue.daemon = True
        overdue.start()
        stop(until_s)
        overdue.cancel()
        return 1 if dead else 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note it, and take no lock: the main thread, which this interrupts, may hold that of the event it waits for.

        A process that was signalled in such a moment heard no signal any more.
        """
        if self._may_end_at_once and number != signal.SIGHUP:
            self._end_at_once()
        self._may_end_at_once |= number != signal.SIGHUP
        is_first, self._signalled = not self._signalled, True
        for call in self._at_first if is_first else ():
            call()

    def _on_quit(self, number: int, frame: FrameType | None) -> None:
        self._end_at_once()

    def _end_at_once(self) -> None:
        self._at_once()
        flush_logs(_LAST_LINES_S)
        os._exit(ENDED_AT_ONCE)
