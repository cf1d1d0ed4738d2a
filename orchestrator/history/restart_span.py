"""What the log holds of one restart: from the first event of its window to its end, read once and added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.domain import events as ev
from orchestrator.domain.explain import Request
from orchestrator.domain.policy import Action
from orchestrator.domain.restart_projection import SETTLED, RestartProjection
from orchestrator.history.restart_story import MOST_EVENTS
from orchestrator.ports.store import EventFilter, Reader

_WRITES = ("FileWritten", "RestartRequested")
_HOLDS = ("WorkspaceHeld", "WorkspaceReleased")
_ENDS = (ev.CycleSucceeded, ev.RestartGaveUp, ev.RestartCancelled)


@dataclass
class RestartSpan:
    """One restart's part of the log.

    ``own`` are the decisions about it, ``end`` the one that settled it. ``writes``, ``requests``, ``paths``,
    ``writers`` and ``actors`` add up its range; ``late`` came after the range and before the end. ``gave_up`` is the
    give-up whose writes it took over. ``truncated``: its range is longer than ``MOST_EVENTS`` and not read whole.
    """

    record: RestartProjection
    own: list[ev.Recorded] = field(default_factory=list)
    writes: list[ev.Recorded] = field(default_factory=list)
    late: list[ev.Recorded] = field(default_factory=list)
    holds: list[ev.Recorded] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    writers: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    gave_up: ev.Recorded | None = None
    truncated: bool = False

    @property
    def end(self) -> ev.Recorded | None:
        """Return the event that settled the restart, if one has."""
        return next((event for event in self.own if isinstance(event.data, _ENDS)), None)

    @property
    def judged(self) -> list[ev.Recorded]:
        """Return the writes that the window was judged by: after a give-up, only newer ones (CONTRACT section 2)."""
        if self.gave_up is None:
            return self.writes
        reached = getattr(self.gave_up.data, "to_position", None)
        if reached is not None:
            return [event for event in self.writes if event.position > reached]
        return [event for event in self.writes if event.recorded_at > self.gave_up.recorded_at]

    def add(self, events: Iterable[ev.Recorded]) -> None:
        """Add events in the order of the log."""
        for event in events:
            data = event.data
            if isinstance(data, ev.FileWritten):
                self._add_write(event, data)
            elif isinstance(data, ev.RestartRequested):
                self._add_request(event, data)
            elif isinstance(data, ev.WorkspaceHeld | ev.WorkspaceReleased):
                self.holds.append(event)
            elif event.correlation_id == self.record.id:
                self.own.append(event)
            elif isinstance(data, ev.RestartGaveUp) and event.position < self.record.queued_position:
                self.gave_up = event

    def _add_write(self, event: ev.Recorded, data: ev.FileWritten) -> None:
        if data.action is Action.RECORD:
            return
        if event.position > self.record.to_position:
            self.late.append(event)
            return
        self.writes.append(event)
        self.paths[data.path] += 1
        self.writers[event.actor] += 1
        self.actors[event.actor] += 1

    def _add_request(self, event: ev.Recorded, data: ev.RestartRequested) -> None:
        if event.position <= self.record.to_position:
            self.requests.append(
                Request(
                    id=event.id,
                    trigger=data.trigger,
                    actor=event.actor,
                    reason=data.reason,
                    requested_at=event.recorded_at,
                )
            )
            self.actors[event.actor] += 1


def read_span(reader: Reader, record: RestartProjection) -> RestartSpan:
    """Read a restart's part of the log: one statement, a few more only where it is longer than ``MOST_EVENTS``."""
    found = RestartSpan(record)
    events = reader.restart_events(record, to_end=record.state in SETTLED, limit=MOST_EVENTS)
    found.add(events)
    if len(events) == MOST_EVENTS:
        _read_rest(reader, found, after=events[-1].position)
    end = found.end
    if end is not None:
        found.late = [event for event in found.late if event.position < end.position]
    return found


def _read_rest(reader: Reader, found: RestartSpan, *, after: int) -> None:
    """Read what a long range leaves out and the story needs: the decisions, the holds, what came late."""
    record = found.record
    found.truncated = after < record.to_position
    found.own.clear()
    found.add(reader.events(EventFilter(correlation_id=record.id, limit=MOST_EVENTS)))
    last = found.own[-1].position if found.end else None
    here = EventFilter(after=after, to_position=last, workspace=record.workspace, types=_HOLDS, limit=MOST_EVENTS)
    found.add(reader.events(here))
    beyond = max(after, record.to_position)
    late = EventFilter(after=beyond, to_position=last, workspace=record.workspace, types=_WRITES, limit=MOST_EVENTS)
    found.add(reader.events(late))
