"""A chore that keeps something behind the log: counts or sums of what was recorded, brought on outside of requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from orchestrator.errors import Unavailable

POSITIONS = 5_000
"""Positions a transaction: on SQLite it keeps other writers waiting, for some 20 ms."""

_RUNS_FOR_S = 2.0
"""A long log is worked off in runs of this length; between them other chores get the thread."""

_log = structlog.get_logger("orchestrator")


class KeptBehind:
    """Brings something on from time to time, until it is stopped.

    ``bring_on`` does so from where it stands to the log's end, or until what it is given says that it is enough.
    """

    def __init__(self, what: str, bring_on: Callable[[Callable[[], bool]], object]) -> None:
        self._what, self._bring_on = what, bring_on
        self._stopping = threading.Event()

    def run(self) -> None:
        """Go on, for a bounded time. A database that is away is a line in the log: the next run goes on."""
        until_s = time.monotonic() + _RUNS_FOR_S
        try:
            self._bring_on(lambda: self._stopping.is_set() or time.monotonic() > until_s)
        except Unavailable as error:
            _log.warning("kept.skipped", what=self._what, error=str(error))

    def stop(self) -> None:
        """End a run after the step it is at."""
        self._stopping.set()
