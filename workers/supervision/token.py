"""What a child started, wherever it went: every process of it inherits a token, and is found and named by it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.domain.secret_values import hide, words_to_hide
from workers.supervision.group import all_pids, process_stat

TOKEN_VARIABLE = "ORCHESTRATOR_CHILD"  # noqa: S105 (a name, no password)
"""Every process that a supervised child starts inherits this variable; it tells them from strangers."""

_SHOWN_MOST = 80
_LOOK_S = 0.05
_KILL_WAIT_S = 2.0


def carries(pid: int, token: str) -> bool:
    """Return whether a process was started by the child that got this token."""
    return f"{TOKEN_VARIABLE}={token}".encode() in _environment(pid).split(b"\0")


def carriers(token: str, *, outside: int | None = None) -> list[int]:
    """Return the living processes that carry the token, those of the group ``outside`` left out."""
    return [pid for pid in all_pids() if carries(pid, token) and _runs(pid, outside)]


def named_process(pid: int, hidden: Sequence[str] | None) -> str:
    """Return ``pid PID (COMMAND)`` for a person who looks for it, without the secrets ``hidden``.

    None: nobody knows what is secret there, so of the command its program alone.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return f"pid {pid}"
    told = words[:1] if hidden is None else words
    said = hide(b" ".join(told).decode(errors="replace"), words_to_hide(hidden or ()))
    shown = ascii(said)[1:-1]
    return f"pid {pid} ({shown if len(shown) <= _SHOWN_MOST else shown[:_SHOWN_MOST] + '...'})"


class Escaped:
    """The processes of a child that left its group, for a session of their own: a KILL to the group misses them."""

    def __init__(self, token: str, group: int, hidden: Sequence[str]) -> None:
        self._token, self._group = token, group
        self._pids = carriers(token, outside=group)
        self.names = [named_process(pid, hidden) for pid in self._pids]

    def signal(self, signum: int) -> None:
        """Send it to each of them."""
        for pid in self._pids:
            signal_carrier(pid, self._token, signum)

    def end(self, until_s: float, hurried: Callable[[], bool]) -> list[int]:
        """Wait for those that were told to end until an instant of ``time.monotonic()``, then KILL what there is.

        Returns the pids that could not be ended.
        """
        while any(_runs(pid, self._group) for pid in self._pids) and time.monotonic() < until_s and not hurried():
            time.sleep(_LOOK_S)
        kill_until_s = time.monotonic() + _KILL_WAIT_S
        while left := carriers(self._token, outside=self._group):
            if time.monotonic() >= kill_until_s:
                return left
            for pid in left:
                signal_carrier(pid, self._token, signal.SIGKILL)
            time.sleep(_LOOK_S)
        return []


def signal_carrier(pid: int, token: str, signum: int) -> None:
    """Send a signal to a process if it carries the token: held by its handle, a pid cannot come to mean another."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if carries(pid, token):
            signal.pidfd_send_signal(handle, signum)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(handle)


def _environment(pid: int) -> bytes:
    """Return a process's environment; of one whose main thread has ended, what its other threads show."""
    environment = _read(f"/proc/{pid}/environ")
    return environment if environment else b"\0".join(_read(path) for path in _of_threads(pid))


def _of_threads(pid: int) -> Sequence[str]:
    stat = process_stat(pid)
    if stat is None or stat.threads <= 1:
        return ()
    try:
        return [f"/proc/{pid}/task/{thread}/environ" for thread in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return ()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # gone, or another user's: not one of ours


def _runs(pid: int, outside: int | None) -> bool:
    stat = process_stat(pid)
    return stat is not None and not stat.is_dead and stat.group != outside
