"""The sealer: one run seals what came and hands every checkpoint to every sink. It never raises for what may happen.

A key that is missing, a sink that is full, a tree that was altered: each failure is an error in the log and counted in
the database, and neither writes nor restarts notice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from orchestrator.crash_points import crash_point
from orchestrator.errors import Conflict, SealRefused, Unavailable
from orchestrator.ports.sealing import Sink, StoredCheckpoint
from orchestrator.ports.store import EventStore
from orchestrator.sealing.seal import MOST_EVENTS, Signing, seal_next

RUN_MOST_S = 8.0
"""A run ends before the next one comes; a backlog is gone on with then."""

_PAGE = 50
_log = structlog.get_logger("orchestrator")


@dataclass
class Run:
    """What one run did: the checkpoints it made, oldest first, and what went wrong, a sentence each."""

    checkpoints: list[StoredCheckpoint] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Sealer:
    """Seals and exports. One run at a time in a process; sealers of several processes are harmless to each other."""

    def __init__(
        self, store: EventStore, signing: Callable[[], Signing], sinks: Sequence[Sink], *, most: int = MOST_EVENTS
    ) -> None:
        """``signing`` reads the keys, anew for each checkpoint; it may raise ``SealKeyUnavailable``."""
        self._store, self._signing, self._most = store, signing, most
        self._sinks = sinks
        self._delivered = [0] * len(sinks)  # the size up to which this process has brought everything to that sink
        self._at_work = threading.Lock()
        self._stopping = threading.Event()

    def run(self, *, within_s: float = RUN_MOST_S) -> Run:
        """Seal and export what there is, in order. A second run at the same time finds the first and does nothing."""
        done = Run()
        if self._at_work.acquire(blocking=False):
            try:
                self._run(done, time.monotonic() + within_s)
            finally:
                self._at_work.release()
        return done

    def stop(self) -> None:
        """End a run after what it is at."""
        self._stopping.set()

    def finish(self, *, within_s: float) -> Run:
        """Run once more after a stop: what the stop itself recorded is sealed too."""
        self._stopping.clear()
        return self.run(within_s=within_s)

    def _run(self, done: Run, until_s: float) -> None:
        working = list(range(len(self._sinks)))
        while self._goes_on(until_s):
            sealed = self._seal(done)
            if sealed is not None:
                done.checkpoints.append(sealed)
            working = [number for number in working if self._brought(number, done, until_s)]
            self._mark_exported(done)
            if sealed is None:
                return

    def _goes_on(self, until_s: float) -> bool:
        return not self._stopping.is_set() and time.monotonic() < until_s

    def _seal(self, done: Run) -> StoredCheckpoint | None:
        try:
            sealed = seal_next(self._store, self._signing(), most=self._most)
        except (SealRefused, Unavailable) as error:
            self._failed("seal.failed", str(error), done)
            return None
        except Conflict:
            _log.info("seal.another_was_first")
            return None
        if sealed is not None:
            _log.info("seal.sealed", events=sealed.tree_size, position=sealed.position, root=sealed.root)
        return sealed

    def _brought(self, number: int, done: Run, until_s: float) -> bool:
        """Bring a sink what it lacks, oldest first; return whether it took everything it was offered."""
        try:
            self._delivered[number] = self._still_there(self._delivered[number])
            while page := self._lacking(self._delivered[number]):
                for checkpoint in page:
                    if not self._goes_on(until_s):
                        return True
                    crash_point("export.begin")
                    self._sinks[number].put(checkpoint)
                    crash_point("export.end")
                    self._delivered[number] = checkpoint.tree_size
        except (SealRefused, Unavailable) as error:
            self._failed("seal.export_failed", str(error), done)
            return False
        return True

    def _still_there(self, delivered: int) -> int:
        """Return how far a sink is; from the beginning where the database was cut back: the sink has the last word."""
        with self._store.read() as reader:
            newest = reader.seals.newest()
        return delivered if newest is not None and newest.tree_size >= delivered else 0

    def _lacking(self, after: int) -> list[StoredCheckpoint]:
        with self._store.read() as reader:
            return reader.seals.unexported(after=after, limit=_PAGE)

    def _mark_exported(self, done: Run) -> None:
        """Note what every sink has; without any sink nothing is exported, and that shows."""
        everywhere = min(self._delivered, default=0)
        try:
            lacking = self._lacking(0)
            if lacking and lacking[0].tree_size <= everywhere:
                self._store.mark_exported(everywhere)
        except Unavailable as error:
            self._failed("seal.export_failed", str(error), done)

    def _failed(self, event: str, why: str, done: Run) -> None:
        _log.error(event, why=why, harm="the log goes on, without proof until this is mended")
        done.problems.append(why)
        try:
            self._store.note_seal_failure(why)
        except Unavailable as error:
            _log.error("seal.failure_not_counted", why=str(error))
