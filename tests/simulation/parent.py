"""The parents of worker processes: each sees the end of its child, buries it and starts another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from orchestrator.errors import Unavailable
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.service.dead_worker import abandon_cycles_of
from tests.simulation.hub import SECOND, Hub, Process

_DIES_TOO = 0.4
"""Share of deaths that nobody sees: the whole host is gone, and the lease is left."""
_TRY_AGAIN = SECOND // 2


class Parents:
    """Whoever is left to say that a worker died. ``start_anew`` is told of each worker that was buried."""

    def __init__(
        self, hub: Hub, rng: Random, store: CoreStore, ids: Ids, start_anew: Callable[[Process], None]
    ) -> None:
        self._hub, self._rng, self._store, self._ids, self._start_anew = hub, rng, store, ids, start_anew
        self._children: dict[Process, Process] = {}

    @property
    def processes(self) -> list[Process]:
        """Every parent that ever had something to do."""
        return list(self._children)

    def child_died(self, worker: Process) -> bool:
        """Have the parent of that worker see it a moment later; return False where it has died too."""
        if self._rng.random() < _DIES_TOO:
            return False
        parent = Process(f"{worker.name} parent")
        self._children[parent] = worker
        self._hub.call_at(self._hub.now + self._rng.randrange(SECOND // 2), partial(self._see, parent))
        return True

    def child_of(self, parent: Process) -> Process | None:
        """Return the dead worker whose parent that process is; None for any other process."""
        return self._children.get(parent)

    def _see(self, parent: Process) -> None:
        self._hub.spawn(parent, partial(self._bury, self._children[parent]), "bury")

    def _bury(self, worker: Process) -> None:
        while True:
            try:
                abandon_cycles_of(self._store, self._ids, worker.name)
            except Unavailable:
                self._hub.wait(_TRY_AGAIN)
            else:
                self._start_anew(worker)
                return
