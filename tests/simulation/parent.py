"""The parents of worker processes: each sees the end of its child and says so, unless it has died with it."""

from __future__ import annotations

from functools import partial
from random import Random

from orchestrator.errors import Unavailable
from orchestrator.ports.store import EventStore, Ids
from orchestrator.service.dead_worker import abandon_cycles_of
from tests.simulation.hub import SECOND, Hub, Process

_DIES_TOO = 0.4
"""Share of deaths that nobody sees: the whole host is gone, and the lease is left."""
_TRY_AGAIN = SECOND // 2


class Parents:
    """Whoever is left to say that a worker died."""

    def __init__(self, hub: Hub, rng: Random, store: EventStore, ids: Ids) -> None:
        self._hub, self._rng, self._store, self._ids = hub, rng, store, ids
        self.processes: list[Process] = []

    def child_died(self, worker: str) -> None:
        """Have the parent of that worker bury it a moment later, if it is still there."""
        if self._rng.random() < _DIES_TOO:
            return
        parent = Process(f"{worker} parent")
        self.processes.append(parent)
        seen_at = self._hub.now + self._rng.randrange(SECOND)
        self._hub.call_at(seen_at, lambda: self._hub.spawn(parent, partial(self._bury, worker), "bury"))

    def _bury(self, worker: str) -> None:
        while True:
            try:
                abandon_cycles_of(self._store, self._ids, worker)
            except Unavailable:
                self._hub.wait(_TRY_AGAIN)
            else:
                return
