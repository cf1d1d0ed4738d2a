"""Keeps the sums behind the log, outside of every request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.history.kept_behind import POSITIONS, KeptBehind
from orchestrator.ports.store import EventStore


def sum_keeping(store: EventStore) -> KeptBehind:
    """Return the chore that sums from time to time what was recorded since the last time."""
    return KeptBehind("sums", partial(keep_sums, store))


def keep_sums(store: EventStore, enough: Callable[[], bool] = lambda: False) -> None:
    """Add what was recorded since the last time, until nothing is left or ``enough``.

    Any number may do so at once: who finds that another has added goes on from there. Raises ``StorageUnavailable``.
    """
    while True:
        with store.read() as reader:
            new = reader.sums_to_add(POSITIONS)
        if new is None:
            return
        store.add_sums(new)
        if enough():
            return
