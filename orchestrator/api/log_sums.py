"""Sums over the log for the metrics: kept in the database at a position, so that a scrape folds only what came since.

Everything that is counted is an event, so the numbers are true in every process layout, whoever asks and whoever
was restarted meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action
from orchestrator.history.crash_loops import count_crash_loops
from orchestrator.ports.sealing import SealState
from orchestrator.ports.store import Backlog, Counters, EventFilter, EventStore, Reader
from orchestrator.ports.verification import Verified

DURATION_BOUNDS_MS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000)
LATENESS_BOUNDS_MS = (50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000)
SAVE_FROM = 500
"""Events in the tail of a scrape from which on the new sums are kept."""

_PAGE = 2_000
_CHUNK = 20_000
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class LogState:
    """One state of the database: sums of the log up to ``position``, and what waits at that same state."""

    position: int
    sums: Mapping[str, int]
    backlog: Backlog
    unclaimable: int
    crash_looping: int
    last_tick_at: datetime | None
    seals: SealState
    verified: Verified | None

    @property
    def imbalance(self) -> int:
        """Return accepted - covered - waived - recorded - pending writes: 0 (S2)."""
        of = self.sums.get
        accepted = sum(of(f"accepted.{action.value}", 0) for action in Action)
        settled = of("covered", 0) + of("waived", 0) + of(f"accepted.{Action.RECORD.value}", 0)
        return accepted - settled - self.backlog.pending_writes


def log_state(store: EventStore) -> LogState:
    """Return the sums and the backlog of one state. Raises ``StorageUnavailable``.

    A long tail (the first scrape of an old database) is folded in chunks that are kept, so that a
    scrape that was given up has not been for nothing.
    """
    while True:
        with store.read() as reader:
            kept = reader.counters()
            newest = reader.last_position()
            sums = LogSums(reader, kept)
            sums.fold(min(newest, kept.position + _CHUNK))
            found = sums.counters()
            if found.position == newest:
                state = LogState(
                    position=newest,
                    sums=found.sums,
                    backlog=reader.backlog(),
                    unclaimable=reader.unclaimable(),
                    crash_looping=count_crash_loops(reader),
                    last_tick_at=reader.last_tick_at(),
                    seals=reader.seals.state(),
                    verified=reader.verified(),
                )
        if found.position - kept.position >= SAVE_FROM:
            store.save_counters(found, expected_position=kept.position)
        if found.position == newest:
            return state


class LogSums:
    """Folds events into sums."""

    def __init__(self, reader: Reader, kept: Counters) -> None:
        self._reader = reader
        self._position = kept.position
        self._sums = Counter(kept.sums)
        self._due_at: dict[str, datetime] = {}

    def counters(self) -> Counters:
        """Return the sums as they are kept."""
        return Counters(position=self._position, sums=dict(self._sums))

    def fold(self, to_position: int) -> None:
        """Take in the events up to ``to_position``."""
        while self._position < to_position:
            page = self._reader.events(EventFilter(after=self._position, to_position=to_position, limit=_PAGE))
            for event in page:
                self._add(event.data)
            self._position = page[-1].position if len(page) == _PAGE else to_position

    def _add(self, data: ev.EventData) -> None:  # noqa: C901 (one flat table of events reads best)
        match data:
            case ev.FileWritten(action=action, decision=decision):
                self._sums[f"accepted.{action.value}"] += 1
                self._sums[f"writes.{decision.value if decision else 'unknown'}"] += 1
            case ev.RestartQueued():
                self._sums["folds"] += 1
                self._sums[f"restarts.{data.cause.value}"] += 1
                self._due_at[data.restart] = data.due_at
            case ev.CycleStarted():
                self._sums["folds"] += 1
                self._add_lateness(data)
            case ev.CycleSucceeded():
                self._sums["cycles.succeeded"] += 1
                self._sums["covered"] += data.writes
                if not data.shadow:
                    self._observe("duration", DURATION_BOUNDS_MS, data.duration_ms)
            case ev.CycleFailed():
                self._sums["cycles.failed"] += 1
                self._observe("duration", DURATION_BOUNDS_MS, data.duration_ms)
            case ev.CycleAbandoned():
                self._sums["cycles.abandoned"] += 1
            case ev.LateResultRejected():
                self._sums["cycles.late_rejected"] += 1
            case ev.ProbeSuppressed():
                self._sums[f"suppressed.{data.reason.value}"] += 1
            case ev.WritesWaived():
                self._sums["waived"] += data.writes

    def _add_lateness(self, data: ev.CycleStarted) -> None:
        if data.attempt != 1:
            return
        due_at = self._due_at.pop(data.restart, None)
        if due_at is None:
            record = self._reader.restart(data.restart)
            due_at = record.due_at if record else data.started_at
        self._observe("lateness", LATENESS_BOUNDS_MS, max(0, (data.started_at - due_at) // _MS))

    def _observe(self, name: str, bounds: tuple[int, ...], ms: int) -> None:
        bound = next((str(bound) for bound in bounds if ms <= bound), "inf")
        self._sums[f"{name}.le.{bound}"] += 1
        self._sums[f"{name}.sum_ms"] += ms
