"""One thread per process renews all its leases while executors work."""

from __future__ import annotations

import math
import threading
import time

import structlog

from orchestrator.errors import Unavailable
from orchestrator.ports.store import CoreStore
from orchestrator.service.lease import LeaseBook

_log = structlog.get_logger("orchestrator")

_TRY_AGAIN_S = 0.5


class LeaseRenewer:
    """Renews at a third of the shortest lease. A database that is away is tried again; the fence guards the rest."""

    def __init__(self, store: CoreStore, leases: LeaseBook) -> None:
        self._store, self._leases = store, leases
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-renewer", daemon=True)

    def start(self) -> None:
        """Begin renewing."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; leases that are still held run out."""
        self._stop.set()
        self._leases.wake()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        tried_s, again_s = time.monotonic(), math.inf
        while not self._stop.is_set():
            wait_s = tried_s + min(self._leases.renew_every_s(), again_s) - time.monotonic()
            if wait_s > 0:
                self._leases.wait_for_take(wait_s)  # a lease that is taken meanwhile may be a shorter one
                if wait_s == math.inf:
                    tried_s = time.monotonic()  # nothing was held until now
                continue
            again_s = math.inf if self._renew() else _TRY_AGAIN_S
            tried_s = time.monotonic()

    def _renew(self) -> bool:
        try:
            return self._leases.renew(self._store)
        except Unavailable as error:
            _log.warning("lease.not_renewed", leases=len(self._leases.held()), error=str(error))
            return False
        except Exception:  # noqa: BLE001 (a thread that died here would lose every lease of the process)
            _log.exception("lease.not_renewed", leases=len(self._leases.held()))
            return False
