"""On what a benchmark ran: the machine in general words, the commit, and how busy others kept the cores meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def described() -> dict[str, str]:
    """Return date, commit, machine and Python, for the head of a page."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), {_memory_gb():.0f} GB of memory, {_system()}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the short id of the commit that is measured, with ``-dirty`` where the tree differs from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that these processes, and all that they started, have used so far."""
    return sum(_tree_cpu_s(pid) for pid in pids)


def memory_mb(pids: Iterable[int]) -> float:
    """Return the memory that these processes and their children hold for themselves, in MB."""
    found = 0
    for pid in pids:
        for process in _tree(pid):
            try:
                found += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # ended meanwhile
    return found / 1e6


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _tree_cpu_s(pid: int) -> float:
    found = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # ended meanwhile: its parent's sum of ended children has it
        found += times.user + times.system + times.children_user + times.children_system
    return found


@dataclass(frozen=True)
class Busy:
    """How busy all cores were over a time, in CPU seconds."""

    took_s: float
    used_s: float


class Meter:
    """Measures the CPU of some processes, and that of the whole machine, over a time."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._began, self._used, self._machine = time.perf_counter(), cpu_s(self._pids), _machine_cpu_s()

    def own_s(self) -> float:
        """Return the CPU seconds of the processes since the start."""
        return cpu_s(self._pids) - self._used

    def machine(self) -> Busy:
        """Return what everybody used since the start."""
        return Busy(took_s=time.perf_counter() - self._began, used_s=_machine_cpu_s() - self._machine)

    def others_share(self, *, own_s: float) -> float:
        """Return the share of the machine, from 0 to 1, that went to what is not measured."""
        seen = self.machine()
        return max(0.0, (seen.used_s - own_s) / (seen.took_s * (os.cpu_count() or 1)))


def _machine_cpu_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def _memory_gb() -> float:
    return psutil.virtual_memory().total / 2**30


def _system() -> str:
    return f"{platform.system()}, a {'virtual' if _is_virtual() else 'real'} machine"


def _is_virtual() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.exists() and " hypervisor" in flags.read_text()
