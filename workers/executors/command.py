"""Executor ``command``: a program that restarts the workspace; exit code 0 means done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import (
    ExecutionCancelled,
    ExecutionError,
    PermanentError,
    ReadinessTimeout,
    TransientError,
    UnknownOutcome,
)
from orchestrator.ports.executor import Order, Readiness, Receipt
from workers.executors import target_fields as fields
from workers.executors.bounded_run import Ended, RecordedUnder, Run, run
from workers.executors.order_limits import check
from workers.executors.program_target import PROGRAM_FIELDS, launch_of, normalise_program
from workers.executors.readiness import look, normalise_ready

DEFAULT_GRACE = "5s"

_NEVER_RAN = frozenset({126, 127})
"""What shells and ``env`` answer for "cannot be executed" and "not found". Source: POSIX, XCU 2.8.2."""


class CommandExecutor:
    """Runs ``argv`` without a shell, in a session of its own, and waits for its end.

    Exit code 0: done. 75 (EX_TEMPFAIL): ``TransientError``. 126, 127, or a program that
    cannot be started: ``PermanentError``. Any other, or a signal: ``UnknownOutcome``, for the
    program may have torn the workspace down before it failed. What the program leaves running in the background
    is left alone after exit code 0, and named; after any other end it is ended with it, and named too. A daemon that
    it moved into a session of its own lives on.
    """

    name: str = "command"
    fenced: bool = False

    def __init__(self, under: RecordedUnder | None = None) -> None:
        self._under = under or RecordedUnder()

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``argv``, ``env``, ``grace``, ``ready``, and ``cwd`` and ``timeout`` where given."""
        fields.refuse_unknown(target, PROGRAM_FIELDS | {"timeout", "ready"})
        normal = normalise_program(target, default_grace=DEFAULT_GRACE)
        normal["ready"] = normalise_ready(target.get("ready", {}))
        if "timeout" in target:
            normal["timeout"] = fields.duration(target["timeout"], "timeout", low_ms=1)
        return normal

    def inspect(self, order: Order) -> str | None:
        """Return None: a command says nothing about what it restarts."""
        return None

    def restart(self, order: Order) -> Receipt:
        """Run the command to its end, to its ``timeout`` or to the cycle's deadline."""
        check(order)
        deadline_s = order.deadline_s
        if "timeout" in order.target:
            deadline_s = min(deadline_s, time.monotonic() + fields.seconds(order.target["timeout"]))
        result = run(
            launch_of(order),
            order,
            self._under,
            deadline_s=deadline_s,
            stopped=order.stop.is_set,
            keeps_background=True,
        )
        if result.ended is Ended.ITSELF and result.returncode == 0 and not result.left:
            return Receipt(output=_with_background(result))
        raise _failure(order.target["argv"][0], result)

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        """Look once, as the target's ``ready`` says."""
        check(order)
        return look(order.target["ready"], order, self._under)


def _with_background(result: Run) -> str:
    if not result.background:
        return result.output
    said = f"left running in the background: {', '.join(result.background)}"
    if result.is_unread:
        said += "; what it prints from now on is lost, and may end it: send its output to a file (>log 2>&1)"
    return f"{said}\n{result.output}"


def _failure(program: str, result: Run) -> ExecutionError:
    kind, sentence = _judged(program, result)
    if result.swept:
        sentence += f"; ended with it: {', '.join(result.swept)}"
    if result.left:
        sentence += f"; could not be ended: pids {result.left}"
    return kind(f"{sentence}; its output:\n{result.output}" if result.output else f"{sentence}; it printed nothing")


def _judged(program: str, result: Run) -> tuple[type[ExecutionError], str]:
    if result.ended is Ended.STOP:
        return ExecutionCancelled, f"command {program!r} was ended: the worker stops or lost its lease"
    if result.ended is Ended.DEADLINE:
        return ReadinessTimeout, f"command {program!r} ran too long and was ended; raise timeout or cycle_timeout"
    if not result.returncode:
        return UnknownOutcome, f"command {program!r} left processes behind"
    return _judged_by_code(program, result.returncode)


def _judged_by_code(program: str, code: int) -> tuple[type[ExecutionError], str]:
    if code < 0:
        return UnknownOutcome, f"command {program!r} was killed by signal {-code} ({_signal_name(-code)})"
    if code == os.EX_TEMPFAIL:
        return TransientError, f"command {program!r} ended with exit code 75 (try again)"
    if code in _NEVER_RAN:
        return PermanentError, f"command {program!r} ended with exit code {code}: it found no program it could run"
    return UnknownOutcome, f"command {program!r} ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time signal"
