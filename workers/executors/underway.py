"""The orders an executor has under way, so that another thread can cancel one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.errors import ExecutionCancelled, ReadinessTimeout
from orchestrator.ports.executor import Order

_SLICE_S = 0.02


class Underway:
    """Joins ``order.stop`` and ``cancel(order)`` into one question: must this end now?"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled: dict[str, threading.Event] = {}

    @contextmanager
    def of(self, order: Order) -> Iterator[Callable[[], bool]]:
        """Give the question for the time of one call.

        Raises ``ExecutionCancelled`` or ``ReadinessTimeout`` at once if it is too late to begin.
        """
        cancelled = threading.Event()
        with self._lock:
            self._cancelled[order.cycle] = cancelled
        try:
            check(order, cancelled.is_set)
            yield lambda: order.stop.is_set() or cancelled.is_set()
        finally:
            with self._lock:
                self._cancelled.pop(order.cycle, None)

    def cancel(self, order: Order) -> None:
        """End what is under way for the order; nothing if nothing is."""
        with self._lock:
            cancelled = self._cancelled.get(order.cycle)
        if cancelled is not None:
            cancelled.set()


def check(order: Order, stopped: Callable[[], bool]) -> None:
    """Raise ``ExecutionCancelled`` if the order must end, ``ReadinessTimeout`` if its deadline has passed."""
    if stopped() or order.stop.is_set():
        raise ExecutionCancelled(f"restart of {order.workspace!r} was cancelled: the worker stops or lost its lease")
    if time.monotonic() >= order.deadline_s:
        raise ReadinessTimeout(
            f"restart of {order.workspace!r} took longer than its cycle may; raise cycle_timeout or look what hangs"
        )


def wait(order: Order, stopped: Callable[[], bool], until_s: float) -> None:
    """Wait until an instant of ``time.monotonic()``; raises as ``check`` does."""
    while True:
        check(order, stopped)
        now_s = time.monotonic()
        if now_s >= until_s:
            return
        order.stop.wait(min(_SLICE_S, until_s - now_s))
