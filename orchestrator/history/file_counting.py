"""Keeps the writes of each file counted, behind the log and outside of every request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.history.kept_behind import POSITIONS, KeptBehind
from orchestrator.ports.inquiries import FILE_COUNTS, Scope
from orchestrator.ports.store import EventStore


def file_counting(store: EventStore) -> KeptBehind:
    """Return the chore that counts from time to time what was written since the last time."""
    return KeptBehind("file counts", partial(count_files, store))


def count_files(store: EventStore, enough: Callable[[], bool] = lambda: False) -> int:
    """Count what was written since the last time, until nothing is left or ``enough``; return the position reached.

    Any number may do so at once: who finds that another has counted goes on from there. Raises ``StorageUnavailable``.
    """
    while True:
        with store.read() as reader:
            kept, last = reader.counters(FILE_COUNTS).position, reader.last_position()
            to_position = min(kept + POSITIONS, last)
            span = to_position - kept
            files = reader.written(Scope(), after=kept, to_position=to_position, most=POSITIONS) if span else []
        if span == 0:
            return kept
        store.add_file_counts(files, position=to_position, expected_position=kept)
        if enough():
            return to_position
