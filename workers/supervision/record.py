"""The file that says which process group supervises a workspace, so that the next run can end it as an orphan."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from orchestrator.errors import PermanentError
from workers.supervision.group import live_members, process_stat
from workers.supervision.token import carriers, carries, named_process

_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.1
_KILL_WAIT_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """A supervised child. A pid alone does not name a process: the kernel gives it out again.

    ``start_ticks`` counts from the boot ``boot_id``; unlike a time of day it does not move when
    the clock is set. ``token`` is in the child's environment.
    """

    workspace: str
    pid: int
    start_ticks: int
    boot_id: str
    token: str
    grace_ms: int
    stop_signal: int = signal.SIGTERM
    cycle: str = ""
    fence: int = 0
    worker: str = ""
    """Of a restart command: the cycle and fence it runs for, and the name of its worker."""

    @property
    def identity(self) -> str:
        """Return ``pid:start_ticks``: differs for every child that ever ran since the boot."""
        return f"{self.pid}:{self.start_ticks}"

    def write(self, path: Path) -> None:
        """Write it so that after a crash the file is whole, old or absent."""
        temporary = path.with_suffix(".tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(self))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def boot_id() -> str:
    """Return the kernel's name of this boot. Source: random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def end_orphans(directory: Path) -> None:
    """End every child that an earlier run recorded in the folder and left alive, and remove the records.

    Ended is its group, and whatever carries its token elsewhere. Raises ``PermanentError`` if one cannot be ended.
    """
    left = _end_recorded(directory, "orphan_ended")
    if left:
        raise PermanentError(
            f"processes {left}, left by an earlier run, could not be ended; end them by hand and start again"
        )
    _sync_folder(directory)


def end_commands(directory: Path) -> None:
    """End all restart commands that a dead worker recorded in the folder, at once, each within its grace.

    Ended is the command's group, and whatever carries its token: it was in mid-cycle, so what it had moved into
    a session of its own would run beside the next attempt. Raises ``PermanentError`` if one cannot be ended.
    """
    left = _end_recorded(directory, "command_ended")
    if left:
        raise PermanentError(f"processes {left}, left by a worker that died, could not be ended; end them by hand")


def kill_commands(directory: Path) -> None:
    """KILL what the records name, and wait for nothing."""
    for path in directory.glob("*.json"):
        record = _read(path)
        if record is not None:
            _signal_all(record, living(record), signal.SIGKILL)


def living(record: ProcessRecord) -> list[int]:
    """Return what lives of a recorded command: its group, and what carries its token elsewhere."""
    if record.boot_id != boot_id():
        return []
    group = live_members(record.pid) if _is_still_there(record) else []
    return sorted({*group, *carriers(record.token)})


def _end_recorded(directory: Path, said: str) -> list[int]:
    """End what the folder's records name, and remove them. Returns the pids that could not be ended."""
    found = [(path, _read(path)) for path in sorted(directory.glob("*.json"))]
    records = [record for _, record in found if record is not None and record.boot_id == boot_id()]
    left = _end_all(records, said)
    for path, _ in found if not left else ():
        path.unlink(missing_ok=True)
    return left


def _end_all(records: Sequence[ProcessRecord], said: str) -> list[int]:
    begun_s, look_s = time.monotonic(), _FIRST_LOOK_S
    told: set[int] = set()
    while lives := {record.token: pids for record in records if (pids := living(record))}:
        waited_s = time.monotonic() - begun_s
        for record in records:
            pids = lives.get(record.token, [])
            if waited_s >= record.grace_ms / 1000:
                _signal_all(record, pids, signal.SIGKILL)
            elif new := set(pids) - told:
                named = [named_process(pid, None) for pid in sorted(new)]
                _log.warning(said, workspace=record.workspace, cycle=record.cycle, processes=named)
                _signal_all(record, sorted(new), record.stop_signal)
                told |= new
        if waited_s >= max(record.grace_ms for record in records) / 1000 + _KILL_WAIT_S:
            return sorted(pid for pids in lives.values() for pid in pids)
        time.sleep(look_s)
        look_s = min(look_s * 2, _LONGEST_LOOK_S)
    return []


def _signal_all(record: ProcessRecord, pids: Sequence[int], signum: int) -> None:
    """Signal each; what is still at the gate or belongs to the group is among them."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Held by its handle, a pid cannot come to mean another process between this look and the signal.
            if carries(pid, record.token) or ((stat := process_stat(pid)) is not None and stat.group == record.pid):
                signal.pidfd_send_signal(handle, signum)
        except (ProcessLookupError, PermissionError):
            continue
        finally:
            os.close(handle)


def _read(path: Path) -> ProcessRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _log.warning("process_record_unreadable", path=str(path), error=str(error))
        return None


def _is_still_there(record: ProcessRecord) -> bool:
    """Return whether the group that now has the number is the one that was recorded.

    Its leader may have gone before its children: then they carry the token.
    """
    if record.boot_id != boot_id():
        return False
    stat = process_stat(record.pid)
    if stat is not None and not stat.is_dead:
        return stat.start_ticks == record.start_ticks
    return any(carries(pid, record.token) for pid in live_members(record.pid))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
