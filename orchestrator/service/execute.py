"""Carry out one cycle with an executor: act, try transient errors again, wait until ready."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from orchestrator.crash_points import crash_point
from orchestrator.domain.commands import Failure, Success
from orchestrator.domain.durations import parse_duration
from orchestrator.domain.events import ErrorKind
from orchestrator.domain.secret_values import hide, words_to_hide
from orchestrator.errors import (
    ExecutionCancelled,
    InvalidTarget,
    PermanentError,
    ReadinessTimeout,
    TransientError,
    UnknownOutcome,
)
from orchestrator.ports.executor import Executor, Order, Readiness, Receipt, Target

_log = structlog.get_logger("orchestrator")

TRANSIENT_TRIES = 3
_TRANSIENT_WAIT_S = 1.0
_LOOK_EVERY_S = 0.5
_MESSAGE_MOST = 2_000
_OUTPUT_MOST = 8_192


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """The cycle was told to stop before it ended."""


Secrets = Callable[[Target], Sequence[str]]
"""Returns what stands behind the references of a target now, in this worker; never raises."""


def execute(
    executor: Executor, order: Order, jitter: Callable[[], float], secrets: Secrets
) -> Success | Failure | Cancelled:
    """Return how the cycle ended. An executor that raises anything at all has failed the cycle, no more.

    The order's target is completed by this executor: it may know more fields than the version that stored it.
    Of ``secrets`` nothing is in what is returned or logged, whatever the executor says.
    """
    said = _Said(secrets, order.target)
    try:
        order = replace(order, target=executor.normalise(order.target))
        before = executor.inspect(order)
        receipt = _act(executor, order, said)
        _await_ready(executor, order, receipt)
        after = executor.inspect(order)
        return Success(
            generation_before=_generation(before, said),
            generation_after=_generation(after, said),
            output=_storable(_both_ends(said.without_secrets(receipt.output), _OUTPUT_MOST), _OUTPUT_MOST),
        )
    except ExecutionCancelled:
        return Cancelled()
    except Exception as error:  # noqa: BLE001 (a plug-in may raise anything; the workspace must not be locked out)
        kind = _kind_of(error)
        if kind is ErrorKind.UNKNOWN and not isinstance(error, UnknownOutcome):
            stack = said.without_secrets(traceback.format_exc())
            _log.error("executor.raised", workspace=order.workspace, cycle=order.cycle, exception=stack)
        told = said.without_secrets(str(error))
        message = _storable(_both_ends(told, _MESSAGE_MOST), _MESSAGE_MOST) or type(error).__name__
        return Failure(error_kind=kind, message=message, jitter=jitter())


class _Said:
    """What an executor says, without the secrets that its target refers to: those of before it acted and of now."""

    def __init__(self, secrets: Secrets, target: Target) -> None:
        self._secrets, self._target = secrets, target
        self._before = secrets(target)

    def without_secrets(self, text: str) -> str:
        """Return the text with each of them masked."""
        return hide(text, words_to_hide([*self._before, *self._secrets(self._target)]))


def _generation(token: object, said: _Said) -> str | None:
    return None if token is None else _storable(said.without_secrets(str(token)), _MESSAGE_MOST)


def _both_ends(said: str, most: int) -> str:
    """Return text that is too long with its middle left out: what failed last says why."""
    if len(said) <= most:
        return said
    mark = f"\n[... {len(said)} characters in all, the middle is left out ...]\n"
    first = (most - len(mark)) // 4
    return said[:first] + mark + said[first + len(mark) - most :]


def _storable(said: object, most: int) -> str:
    """Return what a plug-in said as text that every database keeps: no NUL, no half of a surrogate pair."""
    return str(said)[:most].replace("\x00", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()


def _act(executor: Executor, order: Order, said: _Said) -> Receipt:
    for tried in range(1, TRANSIENT_TRIES + 1):
        if order.stop.is_set():  # an act that is not begun needs no undoing, and a lost lease forbids it
            raise ExecutionCancelled(f"cycle {order.cycle} was told to stop")
        try:
            crash_point("act.begin")
            receipt = executor.restart(order)
            crash_point("act.end")
            return receipt
        except TransientError as error:
            wait_s = min(_TRANSIENT_WAIT_S * tried, order.deadline_s - time.monotonic())
            if tried == TRANSIENT_TRIES or wait_s <= 0:
                raise
            told = said.without_secrets(str(error)).partition("\n")[0]  # what a command printed is nothing for the log
            _log.info("executor.tried_again", workspace=order.workspace, cycle=order.cycle, tried=tried, error=told)
            _wait(order, wait_s)
    raise AssertionError("unreachable: the last try returns or raises")


def _await_ready(executor: Executor, order: Order, receipt: Receipt) -> None:
    every_s = _look_every_s(order)
    while True:
        seen = executor.probe(order, receipt)
        if seen is Readiness.READY:
            return
        if seen is Readiness.FAILED:
            raise UnknownOutcome(f"workspace {order.workspace} ended before it was ready")
        if time.monotonic() + every_s > order.deadline_s:
            raise ReadinessTimeout(f"workspace {order.workspace} was not ready before cycle_timeout")
        _wait(order, every_s)


def _look_every_s(order: Order) -> float:
    ready = order.target.get("ready")
    interval = ready.get("interval") if isinstance(ready, dict) else None
    return parse_duration(interval) / 1000 if interval is not None else _LOOK_EVERY_S


def _wait(order: Order, seconds: float) -> None:
    if order.stop.wait(seconds):
        raise ExecutionCancelled(f"cycle {order.cycle} was told to stop")


def _kind_of(error: Exception) -> ErrorKind:
    kinds: dict[type[Exception], ErrorKind] = {
        TransientError: ErrorKind.TRANSIENT,
        PermanentError: ErrorKind.PERMANENT,
        InvalidTarget: ErrorKind.PERMANENT,
        ReadinessTimeout: ErrorKind.TIMEOUT,
    }
    return next((kind for cls, kind in kinds.items() if isinstance(error, cls)), ErrorKind.UNKNOWN)
