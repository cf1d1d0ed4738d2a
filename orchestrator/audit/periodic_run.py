"""Verifies the log again and again, each time from where the last run ended (``orchestrator audit verify`` as a task).

It reads in short transactions of its own and takes no lock; of two runs at once the later one's end is refused. L1
and L2 are not judged here: an outage would ring an alarm for what ``start_lateness_seconds`` shows already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import structlog

from orchestrator.audit.verify.ledger import Ledger, load, save
from orchestrator.audit.verify.lines import Line, parse_line
from orchestrator.audit.verify.report import Promise, Report
from orchestrator.audit.verify.run import Verification
from orchestrator.domain.canonical_line import canonical_line
from orchestrator.errors import Unavailable
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.ports.verification import StoredVerification

_log = structlog.get_logger("orchestrator")

_NOT_HERE = {Promise.S8, Promise.S10, Promise.L1, Promise.L2}
VERIFIED_PERIODICALLY = tuple(promise for promise in Promise if promise not in _NOT_HERE)
"""The promises that a run checks."""

EVENTS_MOST = 100_000
"""Events in one run; measured: 2 s of work."""
RUN_MOST_S = 10.0
_PAGE = 2_000
_LOGGED_MOST = 20


class PeriodicVerification:
    """One run at a time in a process; those of several processes are harmless to each other."""

    def __init__(self, store: EventStore, *, most: int = EVENTS_MOST) -> None:
        self._store, self._most = store, most
        self._at_work = threading.Lock()
        self._stopping = threading.Event()

    def run(self) -> Report | None:
        """Verify what came since the last run; None if another one is at work, or was first, or the store is away."""
        if not self._at_work.acquire(blocking=False):
            return None
        try:
            return self._run()
        except Unavailable as error:
            _log.warning("verify.skipped", error=str(error))
            return None
        finally:
            self._at_work.release()

    def stop(self) -> None:
        """End a run after the page it is at."""
        self._stopping.set()

    def _run(self) -> Report | None:
        with self._store.read() as reader:
            kept, last, now = reader.verification(), reader.last_position(), reader.clock()
        if last == 0:
            return None
        verification = Verification(ledger=self._ledger(kept))
        begun = verification.ledger.position
        pages = _Pages(self._store, begun, last, self._most, self._stopping)
        verification.read(pages.lines())
        verification.finish(whole=pages.complete)
        report = verification.report("the log")
        ledger = verification.ledger
        found = StoredVerification(
            position=ledger.position,
            state=save(ledger),
            violations=ledger.violations,
            imbalance=report.sums.imbalance,
            verified_at=now,
        )
        if not self._store.save_verification(found, expected_position=None if kept is None else kept.position):
            _log.info("verify.another_was_first")
            return None
        self._tell(report)
        return report

    def _ledger(self, kept: StoredVerification | None) -> Ledger | None:
        """Return where to go on; a state that this version cannot read is a reason to begin anew."""
        if kept is None:
            return None
        try:
            return load(kept.state)
        except ValueError as error:
            _log.warning("verify.begins_anew", why=str(error))
            return None

    def _tell(self, report: Report) -> None:
        for found in report.violations[:_LOGGED_MOST]:
            _log.error(
                "verify.violated",
                promise=found.promise.value,
                workspace=found.workspace,
                positions=list(found.positions),
                what=found.text,
            )
        more = sum(verdict.violations for verdict in report.promises) - _LOGGED_MOST
        if more > 0:
            _log.error("verify.violated_more", violations=more, see="orchestrator audit verify")


class _Pages:
    """The lines after a position, a page a transaction, up to a bound of events and time."""

    def __init__(self, store: EventStore, after: int, last: int, most: int, stopping: threading.Event) -> None:
        self._store, self._after, self._last, self._most, self._stopping = store, after, last, most, stopping
        self._until_s = time.monotonic() + RUN_MOST_S
        self.complete = False
        """Whether the end of the log, as it was at the beginning, has been reached."""

    def lines(self) -> Iterator[Line]:
        """Yield the event that the saved state ends with, so that it is seen to be there still, and those after it."""
        after, read = max(0, self._after - 1), 0
        while read < self._most and time.monotonic() < self._until_s and not self._stopping.is_set():
            with self._store.read() as reader:
                wanted = EventFilter(after=after, to_position=self._last, limit=min(_PAGE, self._most))
                page = reader.stored_events(wanted)
            for event in page:
                line = canonical_line(event)
                yield line, parse_line(line, f"the row at position {event.position}")
            if not page or page[-1].position == self._last:
                self.complete = True
                return
            after, read = page[-1].position, read + len(page)
