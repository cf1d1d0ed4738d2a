"""The two things that end an order early: its stop and its deadline."""

from __future__ import annotations

import time

from orchestrator.errors import ExecutionCancelled, ReadinessTimeout
from orchestrator.ports.executor import Order

_SLICE_S = 0.02


def check(order: Order) -> None:
    """Raise ``ExecutionCancelled`` if the order must end, ``ReadinessTimeout`` if its deadline has passed."""
    if order.stop.is_set():
        raise ExecutionCancelled(f"restart of {order.workspace!r} was cancelled: the worker stops or lost its lease")
    if time.monotonic() >= order.deadline_s:
        raise ReadinessTimeout(
            f"restart of {order.workspace!r} took longer than its cycle may; raise cycle_timeout or look what hangs"
        )


def wait(order: Order, until_s: float) -> None:
    """Wait until an instant of ``time.monotonic()``; raises as ``check`` does."""
    while True:
        check(order)
        now_s = time.monotonic()
        if now_s >= until_s:
            return
        order.stop.wait(min(_SLICE_S, until_s - now_s))
