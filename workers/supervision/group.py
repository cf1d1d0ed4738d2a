"""Ending a whole process group, and knowing that it has ended. Linux only (``/proc``).

The leader of a group is never reaped before the group has been ended: as long as it is
a zombie its pid, which is also the group's number, cannot be given to anybody else, so
a signal to the group can never reach a stranger.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.1
_KILL_WAIT_S = 2.0
"""How long a killed process may take to go. Longer means uninterruptible sleep (a dead disk)."""


@dataclass(frozen=True)
class ProcessStat:
    """What the kernel says of one process; ``start_ticks`` (since boot) tells it from a later one with its pid."""

    state: str
    group: int
    start_ticks: int
    threads: int = 1

    @property
    def is_dead(self) -> bool:
        """True for a zombie: it runs nothing and holds no port, it only waits to be reaped.

        A program whose main thread has ended while others work is shown as a zombie too, with all its threads counted.
        """
        return self.state in ("X", "x") or (self.state == "Z" and self.threads <= 1)


def process_stat(pid: int) -> ProcessStat | None:
    """Return what ``/proc/PID/stat`` says, or None if there is no such process. Source: proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the program's name, in parentheses, may hold anything
    return ProcessStat(state=fields[0], group=int(fields[2]), start_ticks=int(fields[19]), threads=int(fields[17]))


def has_ended(child: int) -> bool:
    """Return whether our child has ended, without reaping it."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def ended_well(child: int) -> bool:
    """Return whether our child has ended with exit code 0, without reaping it."""
    try:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status == 0


def live_members(group: int) -> list[int]:
    """Return the pids of the group's processes that are not zombies."""
    return [pid for pid in all_pids() if _group_of(pid) == group and _is_alive_in(group, pid)]


def signal_group(group: int, signum: int) -> None:
    """Send a signal to all of the group. One that is gone, or is not ours to signal, is left to ``live_members``."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):
        return


def end_group(
    group: int,
    *,
    grace_s: float,
    hurried: Callable[[], bool] = lambda: False,
    pause: Callable[[float], None] = time.sleep,
    stop_signal: int = signal.SIGTERM,
) -> list[int]:
    """Send the group ``stop_signal``, wait up to ``grace_s``, then KILL what is left.

    ``hurried`` is asked all the while and ends the grace early. ``pause`` is how to wait so
    many seconds; a caller that must drain a pipe meanwhile passes its own. Returns the pids
    that could not be ended (another user's, or in uninterruptible sleep): normally none.
    """
    signal_group(group, stop_signal)
    _await_empty(group, time.monotonic() + grace_s, hurried, pause)
    # Also when none was seen: a process forked during the look would have been missed,
    # but none can slip past a KILL to the group.
    signal_group(group, signal.SIGKILL)
    return _await_empty(group, time.monotonic() + _KILL_WAIT_S, lambda: False, pause)


def _await_empty(group: int, until_s: float, hurried: Callable[[], bool], pause: Callable[[float], None]) -> list[int]:
    look_s = _FIRST_LOOK_S
    while members := live_members(group):
        left_s = until_s - time.monotonic()
        if left_s <= 0 or hurried():
            break
        pause(min(look_s, left_s))
        look_s = min(look_s * 2, _LONGEST_LOOK_S)
    return members


def all_pids() -> list[int]:
    """Return the pids of all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _is_alive_in(group: int, pid: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat.group == group and not stat.is_dead
