"""Keeps the sums behind the log, outside of every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from orchestrator.errors import Unavailable
from orchestrator.ports.store import EventStore

_POSITIONS = 5_000
"""Positions a transaction: on SQLite it keeps other writers waiting, for some 20 ms."""

_RUNS_FOR_S = 2.0
"""A long log is summed in runs of this length; between them other chores get the thread."""

_log = structlog.get_logger("orchestrator")


class SumKeeping:
    """Sums from time to time what was recorded since the last time, until it is stopped."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._stopping = threading.Event()

    def run(self) -> None:
        """Go on, for a bounded time. A database that is away is a line in the log: the next run goes on."""
        until_s = time.monotonic() + _RUNS_FOR_S
        try:
            keep_sums(self._store, lambda: self._stopping.is_set() or time.monotonic() > until_s)
        except Unavailable as error:
            _log.warning("sums.skipped", error=str(error))

    def stop(self) -> None:
        """End a run after the step it is at."""
        self._stopping.set()


def keep_sums(store: EventStore, enough: Callable[[], bool] = lambda: False) -> None:
    """Add what was recorded since the last time, until nothing is left or ``enough``.

    Any number may do so at once: who finds that another has added goes on from there. Raises ``StorageUnavailable``.
    """
    while True:
        with store.read() as reader:
            new = reader.sums_to_add(_POSITIONS)
        if new is None:
            return
        store.add_sums(new)
        if enough():
            return
