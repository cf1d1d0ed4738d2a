"""What is restarted: the executor that workers call, and the outside world that it acts on.

The fence is compared by the product's own ledger of acts; beside it the run keeps its own list of what was done,
which nothing of the product reads: it is evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from orchestrator.errors import (
    ExecutionCancelled,
    PermanentError,
    ReadinessTimeout,
    TransientError,
    UnknownOutcome,
)
from orchestrator.ports.executor import Order, Readiness, Receipt
from tests.simulation.boundaries import BOUNDARIES, Boundary
from tests.simulation.database import Striking
from tests.simulation.faults import Fault
from tests.simulation.hub import SECOND, Hub, Process, Thread
from workers.executors.act_ledger import MemoryActLedger

_HANG = 600 * SECOND
_DEAF = 400 * SECOND


class Act(NamedTuple):
    """One restart that really happened: ``log`` is how long the log was at that instant."""

    workspace: str
    restart: str
    cycle: str
    fence: int
    at: int
    log: int


@dataclass
class Outside:
    """The workspaces as they are, whoever looks after them."""

    ledger: MemoryActLedger = field(default_factory=MemoryActLedger)
    acts: list[Act] = field(default_factory=list)
    refused: int = 0
    ready: dict[str, int] = field(default_factory=dict)
    """By cycle: how long the log was when its workspace was seen ready."""
    deadlines: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By cycle: when it came to its act, and until when it may take, both in microseconds."""
    untold: list[str] = field(default_factory=list)
    """Cycles that worked on beside their successor in the same process, and were not told to stop."""
    permanent: set[str] = field(default_factory=set)
    """Cycles that were told that trying again cannot help."""


class SimulatedExecutor:
    """``Executor`` with a fault at every call; ``struck`` counts those of its own."""

    name = "simulated"
    fenced = True

    def __init__(
        self,
        hub: Hub,
        world: Striking,
        rng: Random,
        outside: Outside,
        *,
        shares: Mapping[Fault, float],
        act_takes: int,
        log_length: Callable[[], int],
        acted: Callable[[str], None],
        struck: Callable[[Fault, str], None],
    ) -> None:
        self._hub, self._world, self._rng, self._outside = hub, world, rng, outside
        self._shares, self._act_takes = shares, act_takes
        self._log_length, self._acted, self._struck = log_length, acted, struck
        self._healed = False
        self._deaf: dict[Thread, None] = {}
        self.healthy_takes = SECOND // 10
        """How long a restart takes after the healing."""
        self._seen: dict[str, Readiness] = {}
        self._inside: dict[Process | None, list[Order]] = defaultdict(list)

    def heal(self) -> None:
        """Do everything well from now on, and return where no stop was heard: that keeps a slot, unseen by a log."""
        self._healed = True
        for thread in self._deaf:
            self._hub.wake(thread)

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        return dict(target)

    def inspect(self, order: Order) -> str | None:
        begin, done = _INSPECT
        self._cross(begin)
        seen = self._outside.ledger.last_cycle(order.workspace)
        self._cross(done)
        return seen

    def restart(self, order: Order) -> Receipt:
        """Restart; within one process whoever is overtaken in it has been told to stop by then."""
        inside = self._inside[self._hub.current.process if self._hub.current is not None else None]
        for other in inside:
            overtaken = other.workspace == order.workspace and other.fence < order.fence
            if overtaken and not other.stop.wait(0):
                self._outside.untold.append(f"{order.cycle} acts while {other.cycle} is at work beside it, and untold")
        inside.append(order)
        try:
            return self._restart(order)
        finally:
            inside.remove(order)

    def _restart(self, order: Order) -> Receipt:
        begin, done = _RESTART
        deadline = round(order.deadline_s * SECOND)
        self._outside.deadlines.setdefault(order.cycle, (self._hub.now, deadline))
        self._cross(begin)  # between the worker's last check and the act: only the fence protects from here on
        misfortune = self._misfortune()
        if misfortune is Fault.TRANSIENT:
            raise TransientError("busy")
        if misfortune is Fault.PERMANENT:
            self._outside.permanent.add(order.cycle)
            raise PermanentError("no such container")
        if misfortune is Fault.RAISES:
            raise ValueError("a plug-in's own error\nwith its second line")
        self._act(order)
        if misfortune is not None:
            self._suffer(order, misfortune)
        self._take_time(order, self._rng.randrange(self._act_takes) if not self._healed else self.healthy_takes)
        self._cross(done)
        return Receipt(output="restarted")

    def _act(self, order: Order) -> None:
        try:
            self._outside.ledger.act(order, _no_pause)
        except PermanentError:
            self._outside.refused += 1
            raise
        act = Act(order.workspace, order.restart, order.cycle, order.fence, self._hub.now, self._log_length())
        self._outside.acts.append(act)
        self._acted(order.workspace)

    def _misfortune(self) -> Fault | None:
        if self._healed:
            return None
        for kind, share in self._shares.items():
            if self._rng.random() < share * 0.25:
                self._struck(kind, "")
                return kind
        return None

    def _suffer(self, order: Order, misfortune: Fault) -> None:
        if misfortune is Fault.UNKNOWN:
            raise UnknownOutcome("the connection was cut")
        if misfortune is Fault.DEAF:
            self._be_deaf()
        elif misfortune is Fault.HANG:
            self._take_time(order, _HANG)
        else:
            self._seen[order.cycle] = Readiness.FAILED if misfortune is Fault.ENDED else Readiness.NOT_YET

    def _be_deaf(self) -> None:
        thread = self._hub.current
        if thread is None:
            raise RuntimeError("nobody is deaf")
        self._deaf[thread] = None
        try:
            self._hub.wait(_DEAF)
        finally:
            del self._deaf[thread]

    def _take_time(self, order: Order, length: int) -> None:
        """Be at work: until it is over, the deadline, or the order to stop."""
        left = min(length, max(0, round(order.deadline_s * SECOND) - self._hub.now))
        if order.stop.wait(left / SECOND):
            raise ExecutionCancelled("told to stop")
        if left < length:
            raise ReadinessTimeout("not back before the deadline")

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        begin, done = _PROBE
        self._cross(begin)
        seen = Readiness.READY if self._healed else self._seen.get(order.cycle, Readiness.READY)
        if seen is Readiness.READY:
            self._outside.ready.setdefault(order.cycle, self._log_length())
        self._cross(done)
        return seen

    def _cross(self, boundary: Boundary) -> None:
        struck = self._world.cross(boundary)
        if struck is not None:
            raise UnknownOutcome("the connection was cut") if boundary.stage == "done" else TransientError("no answer")


def _no_pause() -> None:
    return None


_INSPECT = BOUNDARIES["execute.execute", "inspect"]
_RESTART = BOUNDARIES["execute._act", "restart"]
_PROBE = BOUNDARIES["execute._await_ready", "probe"]
