"""One thread per process that says that its worker is there, and what it serves."""

from __future__ import annotations

import socket
import threading

import structlog

from orchestrator.errors import Unavailable
from orchestrator.ports.store import CoreStore
from orchestrator.service.drain import Drainer

_log = structlog.get_logger("orchestrator")


class Presence:
    """Notes the worker every tick. A database that is away is tried again: a worker that it does not know is gone."""

    def __init__(self, store: CoreStore, drainer: Drainer, *, every_s: float) -> None:
        self._store, self._drainer, self._every_s = store, drainer, every_s
        self._slots = drainer.slots.free
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin noting."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the worker is taken for gone a few ticks later."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._note()
            self._stop.wait(self._every_s)

    def _note(self) -> None:
        drainer = self._drainer
        try:
            self._store.note_worker(drainer.worker, socket.gethostname(), drainer.serving, self._slots)
        except Unavailable as error:
            _log.info("worker.not_noted", worker=drainer.worker, error=str(error))
        except Exception:  # noqa: BLE001 (a thread that died here would have a worker that lives taken for gone)
            _log.exception("worker.not_noted", worker=drainer.worker)
