"""One worker process of the product: drainer, lease renewer and ticker as production wires them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.domain.serving import Serving
from orchestrator.domain.state import DEFAULT_POOL
from orchestrator.ports.executor import Executor
from orchestrator.ports.store import CoreStore, Doorbell, Ids
from orchestrator.service.drain import Drainer
from tests.simulation.broker import Task
from tests.simulation.hub import SECOND, Hub, Process
from workers.lease_renewer import LeaseRenewer
from workers.tasks import Ticker

_EXTRA_THREADS = 2
_GRACE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What every worker gets."""

    store: CoreStore
    doorbell: Doorbell
    executors: Mapping[str, Executor]
    ids: Ids
    jitter: Callable[[], float]
    slots: int
    running_most: int | None
    tick: int
    pools: frozenset[str] = frozenset({DEFAULT_POOL})


class Worker:
    """One incarnation: made, killed or stopped, and never used again."""

    def __init__(self, hub: Hub, name: str, wiring: Wiring) -> None:
        self.process = Process(name)
        self._hub, self._wiring = hub, wiring
        self.serving = Serving(executors=frozenset(wiring.executors), pools=wiring.pools)
        self.born_at = hub.now
        self._busy = 0
        self._stopping = False
        self._drainer: Drainer | None = None
        hub.spawn(self.process, self._boot, "main")

    def _boot(self) -> None:
        wiring = self._wiring
        self._drainer = Drainer(
            store=wiring.store,
            executors=wiring.executors,
            ids=wiring.ids,
            worker=self.process.name,
            slots=wiring.slots,
            jitter=wiring.jitter,
            running_most=wiring.running_most,
            serving=self.serving,
        )
        self._renewer = LeaseRenewer(wiring.store, self._drainer.leases)
        self._ticker = Ticker(wiring.store, wiring.doorbell, wiring.ids, self._drainer, tick_s=wiring.tick / SECOND)
        self._works: dict[Task, Callable[[], object]] = {
            Task.TICK: self._ticker.tick,
            Task.DRAIN: self._drainer.drain,
            Task.FORGET: self._ticker.forget_answers,
        }
        self._renewer.start()
        self.take(Task.DRAIN)  # what waits is taken up at once: no bell may come for a tick

    def take(self, task: Task) -> bool:
        """Take a message if a thread is free; a frozen worker takes it too, and finds it when it wakes up."""
        if self.process.dead or self._stopping or self._drainer is None:
            return False
        if self._busy >= self._wiring.slots + _EXTRA_THREADS:
            return False
        self._busy += 1
        self._hub.spawn(self.process, partial(self._carry_out, self._works[task]), task.value)
        return True

    @property
    def idle(self) -> bool:
        """True while it lives, and no thread of it has anything to do."""
        if self.process.dead or self._busy:
            return False
        return self._drainer is None or self._drainer.slots.free == self._wiring.slots

    def _carry_out(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            self._busy -= 1

    @property
    def stops(self) -> bool:
        """True once it was asked to stop."""
        return self._stopping

    def stop(self) -> None:
        """SIGTERM: claim nothing more, give what runs its grace, then end."""
        if not self._stopping and self._drainer is not None:
            self._stopping = True
            self._hub.spawn(self.process, self._end, "stop")

    def _end(self) -> None:
        if self._drainer is not None:
            self._ticker.stop()
            self._drainer.stop(grace_s=_GRACE_S)
            self._renewer.stop()
        self._hub.kill(self.process)
