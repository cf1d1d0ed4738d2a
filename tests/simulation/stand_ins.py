"""What the product's service code finds under the names ``threading`` and ``time`` while it is simulated.

Its modules use these two for waits and deadlines only, so the seam is the modules' own names: no product code knows
of the simulator. ``tests/simulation/test_boundaries.py`` fails when a module begins to use anything else of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import workers.lease_renewer
import workers.tasks
from orchestrator.service import (
    announce,
    change_policy,
    claim,
    dead_worker,
    drain,
    earlier_cycles,
    execute,
    lease,
    passed_over,
    recompute,
    rule_matching,
    shared_claims,
    tick,
)
from tests.simulation.hub import SECOND, Hub, Thread

SIMULATED = (claim, drain, execute, lease, passed_over, shared_claims, tick, workers.tasks, workers.lease_renewer)
"""Every module of the product that waits."""
REPLACED = (*SIMULATED, announce, change_policy, dead_worker, earlier_cycles, recompute, rule_matching)


_WINDOWS_A_PAGE = 1
"""A change of policy takes several pages here too, where few windows are open at a time."""


class _Now:
    """The run that is simulated now; one at a time in a Python process."""

    hub: Hub


class Event:
    """``threading.Event`` on simulated time."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Thread] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            _Now.hub.wake(thread)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set and (timeout is None or timeout > 0):
            hub = _Now.hub
            thread = hub.current
            if thread is not None:
                self._waiting.append(thread)
                hub.wait(_microseconds(timeout))
                if thread in self._waiting:
                    self._waiting.remove(thread)
        return self._set


class Lock:
    """``threading.Lock``. No code of the product keeps one over a boundary, but for those it never waits for."""

    def __init__(self) -> None:
        self._taken = False

    def acquire(self, *, blocking: bool = True) -> bool:
        if self._taken:
            if blocking:
                raise RuntimeError("a lock was kept over a boundary, and another thread waits for it")
            return False
        self._taken = True
        return True

    def release(self) -> None:
        self._taken = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class Condition:
    """``threading.Condition`` with its own lock, which nobody can find taken: threads change at waits only."""

    def __init__(self) -> None:
        self._waiting: list[Thread] = []

    def __enter__(self) -> bool:
        return True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            _Now.hub.wake(thread)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        hub = _Now.hub
        length = _microseconds(timeout)
        ends = None if length is None else hub.now + length
        while not predicate():
            left = None if ends is None else ends - hub.now
            thread = hub.current
            if thread is None or (left is not None and left <= 0):
                return False
            self._waiting.append(thread)
            hub.wait(left)
            if thread in self._waiting:
                self._waiting.remove(thread)
        return True


class StartedThread:
    """``threading.Thread``: it belongs to the process of whoever starts it."""

    def __init__(self, *, target: Callable[[], object], name: str, daemon: bool) -> None:
        self._target, self._name = target, name
        self._thread: Thread | None = None

    def start(self) -> None:
        hub = _Now.hub
        if hub.current is None:
            raise RuntimeError("only a simulated thread can start one")
        self._thread = hub.spawn(hub.current.process, self._target, self._name)

    def join(self, timeout: float) -> None:
        hub = _Now.hub
        ends = hub.now + round(timeout * SECOND)
        while self._thread is not None and not self._thread.done and hub.now < ends:
            hub.wait(min(SECOND // 10, ends - hub.now))


class Threading:
    """The names of ``threading`` that the product uses."""

    Event = Event
    Lock = Lock
    Condition = Condition
    Thread = StartedThread


class Time:
    """The names of ``time`` that the product uses."""

    @staticmethod
    def monotonic() -> float:
        return _Now.hub.now / SECOND


def _microseconds(timeout: float | None) -> int | None:
    return None if timeout is None or timeout == float("inf") else max(1, round(timeout * SECOND))


class Listener:
    """The product's logger: silent, but for what the product logs as a defect of its own."""

    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    def is_enabled_for(self, level: int) -> bool:
        return False

    def info(self, event: str, **fields: object) -> None:
        return None

    warning = error = info

    def exception(self, event: str, **fields: object) -> None:
        error = sys.exc_info()[1]
        if event != _PLUG_IN_RAISED:
            self._heard.append(f"{event}: {type(error).__name__}: {error}")


_PLUG_IN_RAISED = "executor.raised"
"""A plug-in may raise anything: that is logged, and is no defect of the product."""


@contextmanager
def simulated(hub: Hub, heard: list[str]) -> Iterator[None]:
    """Let the product's modules wait on ``hub`` instead of the machine's clock, and log to ``heard``."""
    _Now.hub = hub
    stand_ins = {"threading": Threading, "time": Time, "_log": Listener(heard), "WINDOWS_A_PAGE": _WINDOWS_A_PAGE}
    stand_ins["LAST"] = rule_matching.LastRules()  # what one run has learned is nothing to the next
    kept = [(module, name, getattr(module, name)) for module in REPLACED for name in stand_ins if hasattr(module, name)]
    for module, name, _ in kept:
        setattr(module, name, stand_ins[name])
    try:
        yield
    finally:
        for module, name, original in kept:
            setattr(module, name, original)
