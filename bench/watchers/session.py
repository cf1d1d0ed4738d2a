"""One watcher at work on a terminal of its own: what its program noted, which processes there are, how it ends."""

from __future__ import annotations

import json
import os
import pty
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.watchers import restarted_program
from bench.watchers.field import Place, Watcher

MARK = "BENCH_WATCHERS_SESSION"
"""In the environment of all that a session starts: by it they are found, wherever they have gone."""

_CTRL_C = b"\x03"
_T = TypeVar("_T")
_LOOKS_EVERY_S = 0.02
STARTS_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a program said of itself. ``seen`` is the content of its state file at its start, where it is ready."""

    what: str
    at_ns: int
    pid: int
    seen: str


class DidNotStart(Exception):
    """The text is what the watcher printed."""


class Session:
    """A watcher that runs. Times are those of the monotonic clock."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int, mark: str, log: Path) -> None:
        self._process, self._terminal, self._session, self._log = process, terminal, mark, log
        self._printed = bytearray()
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def printed(self) -> str:
        """Return what the watcher and its program printed so far."""
        return self._printed.decode(errors="replace")

    @property
    def ended(self) -> bool:
        """Say whether the watcher itself has ended."""
        return self._process.poll() is not None

    def notes(self) -> list[Note]:
        """Return all notes so far, in the order of their writing."""
        text = self._log.read_text()
        return [Note(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]

    def starts(self) -> int:
        """Return how often the program was started."""
        return sum(note.what == restarted_program.START for note in self.notes())

    def await_ready(self, *, after_ns: int, within_s: float) -> Note | None:
        """Return the first note of a program that was started after an instant and is ready; None if none comes."""
        return self._await(lambda: _ready_after(self.notes(), after_ns), within_s)

    def await_start(self, *, after_ns: int, within_s: float) -> bool:
        """Say whether the program was started after an instant, however that ended."""
        return self._await(
            lambda: any(note.what == restarted_program.START and note.at_ns > after_ns for note in self.notes()),
            within_s,
        )

    def await_rest(self, *, quiet_s: float, within_s: float) -> None:
        """Return once nothing was noted for so long, or the time is over."""
        until, size, since = time.monotonic() + within_s, -1, time.monotonic()
        while time.monotonic() < until and time.monotonic() - since < quiet_s:
            now = self._log.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            time.sleep(_LOOKS_EVERY_S)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._terminal, _CTRL_C)

    def close_terminal(self) -> None:
        """Close the window: who leads the terminal's session gets HUP."""
        self._closing.set()
        self._reader.join()
        os.close(self._terminal)

    def await_end(self, *, within_s: float) -> list[str]:
        """Return what is left once the time is over, or sooner nothing: a word for each process, sorted."""
        self._await(lambda: self.ended and not self._left(), within_s)
        return sorted(what for _, what in self._left())

    def clean(self) -> None:
        """Kill what is left."""
        while left := self._left():
            for pid, _ in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.ended  # noqa: B018 - reaps it
            time.sleep(_LOOKS_EVERY_S)
        self._process.wait()
        if not self._closing.is_set():
            self.close_terminal()

    def _await(self, condition: Callable[[], _T], within_s: float) -> _T:
        until = time.monotonic() + within_s
        while not (found := condition()) and time.monotonic() < until:
            time.sleep(_LOOKS_EVERY_S)
        return found

    def _left(self) -> list[tuple[int, str]]:
        return [(pid, what) for pid in _pids() if (what := self._what(pid))]

    def _what(self, pid: int) -> str:
        """Return what a living process of this session is: its watcher, its program, say; nothing for any other."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return ""  # ended meanwhile, or another user's
        if f"{MARK}={self._session}".encode() not in environment.split(b"\0"):
            return ""
        if restarted_program.BACKGROUND.encode() in words:
            return "grandchild"
        if pid == self._process.pid:
            return "watcher"
        name = os.fsdecode(words[0])
        is_ours = name == sys.executable and restarted_program.__file__.encode() in words
        return "program" if is_ours else f"a {Path(name).name} of the watcher"

    def _read(self) -> None:
        """Until the terminal is to be closed: a descriptor that a thread reads from is not closed by another."""
        while not self._closing.is_set():
            if not select.select([self._terminal], [], [], _LOOKS_EVERY_S)[0]:
                continue
            try:
                part = os.read(self._terminal, 65536)
            except OSError:  # how Linux says that nobody has the other end open
                self._closing.wait(_LOOKS_EVERY_S)
                continue
            self._printed += part


@contextmanager
def session(watcher: Watcher, place: Place, program: Sequence[str], log: Path, *, shell: Path) -> Iterator[Session]:
    """Start a watcher in the folder ``shell`` and yield it once its program is ready for the first time.

    Raises ``DidNotStart``. At the end whatever is left is killed.
    """
    log.touch()
    mark = secrets.token_hex(8)
    terminal, other_end = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    environment |= {MARK: mark, "PWD": str(shell), "TERM": "xterm"}
    process = subprocess.Popen(
        ["setsid", "--ctty", *watcher.command(place, program)],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        cwd=shell,
        env=environment,
    )
    os.close(other_end)
    running = Session(process, terminal, mark, log)
    try:
        if running.await_ready(after_ns=0, within_s=STARTS_WITHIN_S) is None:
            raise DidNotStart(f"{watcher.name}: {running.printed[-600:]}")
        yield running
    finally:
        running.clean()


def _ready_after(notes: Sequence[Note], instant_ns: int) -> Note | None:
    started = {note.pid for note in notes if note.what == restarted_program.START and note.at_ns > instant_ns}
    ready = (note for note in notes if note.what == restarted_program.READY and note.pid in started)
    return next(ready, None)


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)
