"""Keeps the writes of each file counted, behind the log and outside of every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from orchestrator.errors import Unavailable
from orchestrator.ports.inquiries import FILE_COUNTS, Scope
from orchestrator.ports.store import EventStore

_POSITIONS = 5_000
"""Positions a transaction: on SQLite it keeps other writers waiting, for some 20 ms."""

_RUNS_FOR_S = 2.0
"""A count of a long log gives its thread back after that; the next one goes on."""

_log = structlog.get_logger("orchestrator")


class FileCounting:
    """Counts from time to time what was written since the last time, until it is stopped."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._stopping = threading.Event()

    def run(self) -> None:
        """Count on, for a bounded time. A database that is away is a line in the log: the next run goes on."""
        until_s = time.monotonic() + _RUNS_FOR_S
        try:
            count_files(self._store, lambda: self._stopping.is_set() or time.monotonic() > until_s)
        except Unavailable as error:
            _log.warning("count.skipped", error=str(error))

    def stop(self) -> None:
        """End a run after the step it is at."""
        self._stopping.set()


def count_files(store: EventStore, enough: Callable[[], bool] = lambda: False) -> int:
    """Count what was written since the last time, until nothing is left or ``enough``; return the position reached.

    Any number may do so at once: who finds that another has counted goes on from there. Raises ``StorageUnavailable``.
    """
    while True:
        with store.read() as reader:
            kept, last = reader.counters(FILE_COUNTS).position, reader.last_position()
            to_position = min(kept + _POSITIONS, last)
            span = to_position - kept
            files = reader.written(Scope(), after=kept, to_position=to_position, most=_POSITIONS) if span else []
        if span == 0:
            return kept
        store.add_file_counts(files, position=to_position, expected_position=kept)
        if enough():
            return to_position
