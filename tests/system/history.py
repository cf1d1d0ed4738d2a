"""What the log says about one workspace, and the promises that hold of every log (CONTRACT section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action

DataT = TypeVar("DataT", bound=ev.EventData)
CycleEnd = ev.CycleSucceeded | ev.CycleFailed | ev.CycleAbandoned


@dataclass(frozen=True)
class Cycle:
    """One cycle: its start, and its end if it has one."""

    start: ev.CycleStarted
    end: CycleEnd | None
    ended_at: datetime | None

    @property
    def succeeded(self) -> bool:
        return isinstance(self.end, ev.CycleSucceeded)

    def covers(self, position: int) -> bool:
        return self.start.from_position <= position <= self.start.to_position


class History:
    """The events of one workspace in the order of the log."""

    def __init__(self, events: Sequence[ev.Recorded]) -> None:
        self.events = list(events)

    def of(self, kind: type[DataT]) -> list[DataT]:
        return [event.data for event in self.events if isinstance(event.data, kind)]

    def recorded(self, kind: type[ev.EventData]) -> list[ev.Recorded]:
        return [event for event in self.events if isinstance(event.data, kind)]

    @property
    def queued(self) -> list[ev.RestartQueued]:
        return self.of(ev.RestartQueued)

    @property
    def starts(self) -> list[ev.CycleStarted]:
        return self.of(ev.CycleStarted)

    @property
    def cycles(self) -> list[Cycle]:
        ends = {
            event.data.cycle: (event.data, event.recorded_at)
            for event in self.events
            if isinstance(event.data, CycleEnd)
        }
        return [Cycle(start, *ends.get(start.cycle, (None, None))) for start in self.starts]

    @property
    def successes(self) -> list[Cycle]:
        return [cycle for cycle in self.cycles if cycle.succeeded]

    @property
    def running(self) -> Cycle | None:
        return next((cycle for cycle in self.cycles if cycle.end is None), None)

    @property
    def writes(self) -> list[ev.Recorded]:
        """The writes that ask for a restart."""
        return [
            event
            for event in self.recorded(ev.FileWritten)
            if isinstance(event.data, ev.FileWritten) and event.data.action is not Action.RECORD
        ]

    @property
    def asks(self) -> list[ev.Recorded]:
        """Everything that must be covered or waived: writes and requests."""
        return sorted([*self.writes, *self.recorded(ev.RestartRequested)], key=lambda event: event.position)

    @property
    def pending(self) -> list[ev.Recorded]:
        ranges = [(cycle.start.from_position, cycle.start.to_position) for cycle in self.successes]
        ranges += [(waived.from_position, waived.to_position) for waived in self.of(ev.WritesWaived)]
        return [ask for ask in self.asks if not any(low <= ask.position <= high for low, high in ranges)]

    def covering(self, position: int) -> list[Cycle]:
        return [cycle for cycle in self.successes if cycle.covers(position)]


def check_sound(history: History) -> None:
    """Assert what is true of every workspace's log at every instant."""
    _check_order(history)
    _check_single_flight(history)
    _check_spacing(history)
    _check_tiles(history)


def _check_order(history: History) -> None:
    """Positions and versions rise, time never falls, and every new start has a later stamp and a higher fence."""
    positions = [event.position for event in history.events]
    assert positions == sorted(set(positions))
    versions = [event.version for event in history.events if event.version is not None]
    assert versions == list(range(1, len(versions) + 1))
    instants = [event.recorded_at for event in history.events]
    assert instants == sorted(instants)
    stamps = [(start.started_at, start.fence) for start in history.starts]
    for (stamp, fence), (later, higher) in pairwise(stamps):
        assert later > stamp, "S7: a start without a later stamp"
        assert higher > fence, "S7: a start without a higher fence"
    assert [start.previous_started_at for start in history.starts[1:]] == [stamp for stamp, _ in stamps[:-1]]


def _check_single_flight(history: History) -> None:
    """Never two cycles open at once, never two restarts unsettled; an end carries the fence of its start."""
    open_cycle: ev.CycleStarted | None = None
    open_restart: str | None = None
    for event in history.events:
        data = event.data
        if isinstance(data, ev.RestartQueued):
            assert open_restart is None, "S6: two unsettled restarts"
            open_restart = data.restart
        elif isinstance(data, ev.CycleStarted):
            assert open_cycle is None, "S3: two live cycles"
            assert data.restart == open_restart
            open_cycle = data
        elif isinstance(data, CycleEnd):
            assert open_cycle is not None, "S3: an end without a start"
            assert (data.cycle, data.fence) == (open_cycle.cycle, open_cycle.fence)
            open_cycle = None
            open_restart = None if isinstance(data, ev.CycleSucceeded) else open_restart
        elif isinstance(data, ev.RestartGaveUp | ev.RestartCancelled):
            open_restart = None


def _check_spacing(history: History) -> None:
    """Restarts that no manual request asked for keep ``min_interval`` from the last start; none is queued early."""
    last_start: datetime | None = None
    queued: dict[str, ev.RestartQueued] = {}
    for event in history.events:
        if isinstance(event.data, ev.RestartQueued):
            queued[event.data.restart] = event.data
            assert event.recorded_at >= event.data.due_at, "S5: queued before it was due"
        if isinstance(event.data, ev.CycleStarted):
            restart = queued[event.data.restart]
            if event.data.attempt == 1 and last_start is not None and restart.cause is not ev.Cause.MANUAL:
                spacing = timedelta(milliseconds=restart.min_interval_ms)
                assert event.data.started_at >= last_start + spacing, "S4: started too soon"
            last_start = event.data.started_at


def _check_tiles(history: History) -> None:
    """Covered and waived ranges of a workspace tile: no overlap, no hole."""
    ends_at = 0
    for event in history.events:
        data = event.data
        if isinstance(data, ev.CycleSucceeded):
            started = next(start for start in history.starts if start.cycle == data.cycle)
            low, high = started.from_position, started.to_position
        elif isinstance(data, ev.WritesWaived):
            low, high = data.from_position, data.to_position
        else:
            continue
        assert low == ends_at + 1, "S6: ranges overlap or leave a hole"
        ends_at = high
