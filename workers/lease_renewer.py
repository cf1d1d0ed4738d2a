"""One thread per process renews all its leases while executors work."""

from __future__ import annotations

import threading

import structlog

from orchestrator.errors import Unavailable
from orchestrator.ports import EventStore
from orchestrator.service.lease import LeaseBook

_log = structlog.get_logger("orchestrator")

_LOOK_EVERY_S = 0.25


class LeaseRenewer:
    """Renews at a third of the shortest lease. A database that is away is tried again; the fence guards the rest."""

    def __init__(self, store: EventStore, leases: LeaseBook) -> None:
        self._store, self._leases = store, leases
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-renewer", daemon=True)

    def start(self) -> None:
        """Begin renewing."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; leases that are still held run out."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        waited_s = 0.0
        while not self._stop.wait(_LOOK_EVERY_S):
            waited_s += _LOOK_EVERY_S
            if waited_s < self._leases.renew_every_s():
                continue
            waited_s = 0.0
            try:
                self._leases.renew(self._store)
            except Unavailable as error:
                _log.warning("lease.not_renewed", leases=len(self._leases.held()), error=str(error))
