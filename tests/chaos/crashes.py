"""Which process can end at which crash point, and in what order a plan makes them do it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from tests.chaos.production import ChaosProduction
from tests.waiting import wait_until

_EVENTS = ("RestartQueued", "CycleStarted", "CycleSucceeded")
_WORKER = (
    "message.received",
    "message.taken",
    "export.begin",
    "export.end",
    "bell.ring",
    "bell.rung",
    "act.begin",
    "act.end",
    "change.begin",
    "change.commit",
    "change.committed",
    "write.begin",
    "write.locked",
    "write.step",
    *(f"write.{point}/{event}" for event in _EVENTS for point in ("appended", "commit", "committed")),
)
_API = (
    "write.begin",
    "write.locked",
    "write.step",
    "write.appended/FileWritten",
    "write.commit/FileWritten",
    "write.committed/FileWritten",
    "write.commit/RestartRequested",
    "write.committed/RestartRequested",
)
CRASHES: Mapping[str, Sequence[str]] = {
    "api": _API,
    "beat": ("beat.fire", "beat.fired"),
    "worker-1": _WORKER[::2],
    "worker-2": _WORKER[1::2],
}
"""Every crash point, by the process that comes to it: two workers share theirs."""


def carry_out(production: ChaosProduction, plan: Mapping[str, Sequence[str]], *, timeout_s: float = 180.0) -> None:
    """Let each process end at each of its crash points, one after the other, all processes at once; then start all."""
    left = {name: deque(points) for name, points in plan.items()}
    at: dict[str, str] = {}
    for name in plan:
        production.end(name)

    def over() -> bool:
        for name in plan:
            if name in at and production.processes[name].crashed:
                production.await_crash(name, at.pop(name))
                if left[name]:
                    production.processes[name].kill()  # the next point needs a parent that is told of it
            if name not in at and left[name]:
                at[name] = left[name].popleft()
                production.begin(name, at[name])
            elif name not in at and not production.processes[name].alive:
                production.begin(name)
        return not at

    wait_until(over, what=f"all ends of the plan; left {left}, at {at}", timeout_s=timeout_s, every_s=0.02)
