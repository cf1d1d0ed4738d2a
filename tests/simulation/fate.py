"""What happens to a thread at a boundary: time passes, others run on, and sometimes a fault strikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.simulation.boundaries import Boundary
from tests.simulation.faults import Fault
from tests.simulation.hub import SECOND, Hub, Killed, Process, Thread
from tests.simulation.plan import Plan

_LOWEST_LATENCY, _HIGHEST_LATENCY, _SLOW_LATENCY = 200, 8_000, 2 * SECOND
_SLOW = 0.01
_SWITCHES = 0.3
"""At so many of the crossings other threads run on before this one does, at ``_SLOW`` of them for long."""
_MOST_CROSSINGS = 40_000
"""A run that crosses more boundaries than this goes round in circles; the longest honest ones cross 8,000."""
_DELAYED_COMMIT_MOST = 2 * SECOND


class Runaway(BaseException):
    """The run does not come to an end. Not an ``Exception``, which the product would log."""


@dataclass
class Tally:
    """What a run has seen, for the page that is published. ``interleaving``: a hash of (process, boundary) in order."""

    faults: Counter[str] = field(default_factory=Counter)
    crossings: int = 0
    crashed_at: Counter[str] = field(default_factory=Counter)
    interleaving: int = 0


class Fate:
    """The faults at boundaries of one run. ``killed`` is told of a process that dies, and for how long it is away."""

    def __init__(
        self, hub: Hub, plan: Plan, killed: Callable[[Process, int], None], *, story: list[str] | None
    ) -> None:
        self._hub, self._killed, self.story = hub, killed, story
        self.tally = Tally()
        self._healed = False
        self._delayed: dict[Thread, None] = {}
        self._fate, self._pace = Random(f"{plan.seed} fate"), Random(f"{plan.seed} pace")
        self._chance = plan.chance if plan.shares else 0.0
        self._kinds, self._weights = list(plan.shares), list(plan.shares.values())
        self._aims = {aim.boundary: aim for aim in plan.aims}
        self._crossed: Counter[int] = Counter()

    def heal(self) -> None:
        """Strike no more, and let go on what is delayed: a tick that comes a minute late would outlast the faults."""
        self._healed = True
        for thread in self._delayed:
            self._hub.wake(thread)

    def struck(self, fault: Fault, where: str) -> None:
        """Count a fault, and tell of it."""
        self.tally.faults[fault.value] += 1
        if self.story is not None:
            self.tell(f"FAULT {fault.value} {where}")

    def tell(self, text: str) -> None:
        """Add a line to the story, if one is told."""
        if self.story is not None:
            self.story.append(f"{self._hub.now / SECOND:10.3f}  {text}")

    def cross(self, boundary: Boundary) -> Fault | None:
        """Let the current thread cross a boundary. Returns an error that the caller must make of it.

        Raises ``Killed``.
        """
        thread = self._hub.current
        if thread is None:
            raise RuntimeError(f"nobody crosses {boundary.name}")
        process, tally, number = thread.process, self.tally, boundary.number
        if process.dead:
            raise Killed
        if process.frozen:
            self._hub.wait(0)
        tally.crossings += 1
        if tally.crossings > _MOST_CROSSINGS:
            raise Runaway
        tally.interleaving = hash((tally.interleaving, process.index, number))
        if self._healed:
            self._hub.wait(_LOWEST_LATENCY)
            return None
        if number in self._aims:
            aim = self._aims[number]
            self._crossed[number] += 1
            if self._crossed[number] == aim.nth:
                return self._strike(aim.fault, boundary, process, aim.amount)
        if self._chance and self._fate.random() < self._chance:
            kind = self._fate.choices(self._kinds, self._weights)[0]
            amount = self._fate.choice((0.2, 2, 8, 40)) * self._fate.uniform(0.3, 1.2)
            return self._strike(kind, boundary, process, round(amount * SECOND))
        draw = self._pace.random()
        if draw < _SWITCHES:
            longest = _SLOW_LATENCY if draw < _SLOW else _HIGHEST_LATENCY
            self._hub.wait(_LOWEST_LATENCY + int(self._pace.random() * longest))
        return None

    def _strike(self, fault: Fault, boundary: Boundary, process: Process, amount: int) -> Fault | None:
        where, hub = f"{process.name} at {boundary.name}", self._hub
        if fault in _FITS and boundary.stage not in _FITS[fault]:
            return None
        self.struck(fault, where)
        if fault is Fault.CRASH:
            self.tally.crashed_at[boundary.name] += 1
            self._killed(process, amount)
            raise Killed
        if fault is Fault.FREEZE:
            hub.freeze(process, amount)
            if boundary.stage == "commit":
                return Fault.ERROR_INSTEAD  # the server ends a transaction that idles
            hub.wait(0)
            return None
        if fault is Fault.DELAY:
            self._delay(min(amount, _DELAYED_COMMIT_MOST) if boundary.stage == "commit" else amount)
            return None
        return fault

    def _delay(self, amount: int) -> None:
        thread = self._hub.current
        if thread is None:
            raise RuntimeError("nobody is delayed")
        self._delayed[thread] = None
        try:
            self._hub.wait(amount)
        finally:
            del self._delayed[thread]


_FITS = {
    Fault.ERROR_BEFORE: frozenset({"begin"}),
    Fault.ERROR_INSTEAD: frozenset({"commit"}),
    Fault.ERROR_AFTER: frozenset({"committed", "sent", "done"}),
}
"""At which end of an operation an error of that kind can come."""
