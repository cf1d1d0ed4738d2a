"""One child of the supervisor: gate, record, and an end that takes its whole group."""

from __future__ import annotations

import dataclasses
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ExecutionError, TransientError
from workers.supervision.gate import GatedChild, spawn_gated
from workers.supervision.group import end_group, has_ended, process_stat, signal_group
from workers.supervision.launch import Launch
from workers.supervision.record import ProcessRecord, boot_id
from workers.supervision.token import TOKEN_VARIABLE, Escaped


@dataclass(frozen=True, kw_only=True)
class ChildEnd:
    """How a child ended. ``escaped`` names what had left its group and was ended all the same."""

    identity: str
    exit_code: int | None
    signal: int | None
    lived_s: float
    escaped: Sequence[str]

    @property
    def said(self) -> str:
        """Return how, in words."""
        return f"killed by signal {self.signal}" if self.exit_code is None else f"exit code {self.exit_code}"


class SupervisedChild:
    """A running child that is on record. Only ``end`` reaps it."""

    def __init__(self, gated: GatedChild, record: ProcessRecord, path: Path) -> None:
        self._process = gated.process
        self._path = path
        self.pid = gated.process.pid
        self.identity = record.identity
        self.token = record.token
        self.launch = gated.launch
        self.grace_s = gated.launch.grace_s
        self.started_s = time.monotonic()

    @property
    def has_ended(self) -> bool:
        """True once the leader has ended, reaped or not."""
        return has_ended(self.pid)

    def end(self, *, grace_s: float, hurried: Callable[[], bool]) -> ChildEnd:
        """End what is left of the group and what has left it, reap the leader, remove the record.

        Raises ``TransientError`` if a process cannot be ended; the record is kept then.
        """
        lived_s = time.monotonic() - self.started_s
        until_s = time.monotonic() + grace_s
        escaped = Escaped(self.token, self.pid, self.launch.hidden)
        escaped.signal(self.launch.stop_signal)
        left = end_group(self.pid, grace_s=grace_s, hurried=hurried, stop_signal=self.launch.stop_signal)
        left += escaped.end(until_s, hurried)
        if left:
            raise TransientError(f"processes {left} of child {self.pid} could not be ended; end them by hand")
        code = self.reap()
        return ChildEnd(
            identity=self.identity,
            exit_code=None if code < 0 else code,
            signal=-code if code < 0 else None,
            lived_s=lived_s,
            escaped=escaped.names,
        )

    def reap(self) -> int:
        """Wait for the leader, of whose group nothing is left, and remove the record; return its code (or -signal)."""
        code = self._process.wait()
        self._path.unlink(missing_ok=True)
        return code

    def kill(self) -> None:
        """KILL the group at once."""
        signal_group(self.pid, signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a child is for: the workspace; of a restart command its cycle, fence and worker too."""

    workspace: str
    cycle: str = ""
    fence: int = 0
    worker: str = ""


def start_child(
    purpose: Purpose,
    launch: Launch,
    place: Path,
    *,
    output: int | None,
    on_record: Callable[[SupervisedChild], None],
) -> None:
    """Start a child; a record names it before its program runs, so that no crash leaves an unknown orphan.

    ``place`` is the record's file, or a folder in which it gets one of its own. ``on_record`` gets the child at that
    point. Raises ``PermanentError`` or ``TransientError`` if the program cannot be started; a child that was handed
    over is still the receiver's to end then.
    """
    token = uuid.uuid4().hex
    path = place / f"{token}.json" if place.is_dir() else place
    launch = dataclasses.replace(launch, env={**launch.env, TOKEN_VARIABLE: token})
    gated = spawn_gated(launch, output=output)
    try:
        record = _record_of(gated, purpose, token)
        record.write(path)
    except (OSError, ExecutionError) as error:
        gated.turn_away()
        raise TransientError(f"cannot record the child of {purpose.workspace!r} in {path}: {error}") from error
    on_record(SupervisedChild(gated, record, path))
    gated.open()


def _record_of(gated: GatedChild, purpose: Purpose, token: str) -> ProcessRecord:
    pid = gated.process.pid
    stat = process_stat(pid)
    if stat is None:
        raise TransientError(f"the child {pid} vanished")
    return ProcessRecord(
        workspace=purpose.workspace,
        pid=pid,
        start_ticks=stat.start_ticks,
        boot_id=boot_id(),
        token=token,
        grace_ms=round(gated.launch.grace_s * 1000),
        stop_signal=gated.launch.stop_signal,
        cycle=purpose.cycle,
        fence=purpose.fence,
        worker=purpose.worker,
    )
