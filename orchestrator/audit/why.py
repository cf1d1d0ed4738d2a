"""Why a restart happened: its record, the sentence, and every fact that the sentence rests on.

A handful of statements, whatever the history's length: the record, its decisions, what the workspace's log holds
between the window's first event and the restart's end, the restart before, and the one that covers late writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.audit.cycles import CycleStory, cycles_of
from orchestrator.audit.restart_story import MOST_EVENTS, ActorCount, Counts, PathCount, RestartStory, WindowStory
from orchestrator.audit.waits import holds_of, waits_of
from orchestrator.domain import events as ev
from orchestrator.domain.explain import LateWrites, Request, RestartFacts, Wait, explain_restart
from orchestrator.domain.policy import Action
from orchestrator.domain.restart_record import SETTLED, RestartRecord, RestartState
from orchestrator.errors import NotFound
from orchestrator.ports import EventFilter, Reader, RestartFilter

_PAGE = 1_000
_TOP = 10
_WRITES = ("FileWritten", "RestartRequested")
_HOLDS = ("WorkspaceHeld", "WorkspaceReleased")
_ENDS = (ev.CycleSucceeded, ev.RestartGaveUp, ev.RestartCancelled)


@dataclass
class _Span:
    """What the workspace's log holds from the window's first event to the restart's end.

    Writes and requests of the restart's range are added up; ``late`` came after the range, before the end.
    """

    to_position: int
    writes: list[ev.Recorded] = field(default_factory=list)
    late: list[ev.Recorded] = field(default_factory=list)
    holds: list[ev.Recorded] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    writers: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    truncated: bool = False

    def add(self, event: ev.Recorded) -> None:
        data = event.data
        if isinstance(data, ev.FileWritten):
            if data.action is not Action.RECORD:
                self._add_write(event, data)
        elif not isinstance(data, ev.RestartRequested):
            self.holds.append(event)
        elif event.position <= self.to_position:
            self.requests.append(_request(event, data))
            self.actors[event.actor] += 1

    def _add_write(self, event: ev.Recorded, data: ev.FileWritten) -> None:
        if event.position > self.to_position:
            self.late.append(event)
            return
        self.writes.append(event)
        self.paths[data.path] += 1
        self.writers[event.actor] += 1
        self.actors[event.actor] += 1


def why(reader: Reader, restart: str) -> RestartStory:
    """Return the story of a restart; reads at most a few times ``MOST_EVENTS`` events. Raises ``NotFound``."""
    record = reader.restart(restart)
    if record is None:
        raise NotFound(f"restart {restart!r} does not exist; `orchestrator restarts` lists them")
    held = _hold_now(reader, record)
    own = reader.events(EventFilter(correlation_id=record.id, limit=MOST_EVENTS))
    end = next((event for event in own if isinstance(event.data, _ENDS)), None)
    found = _span(reader, record, end.position if end else None)
    previous = _previous(reader, record)
    cycles = cycles_of(own)
    waits = waits_of(
        record,
        writes=_judged(found.writes, previous),
        requests=found.requests,
        holds=holds_of(found.holds, end.recorded_at if end else reader.now()),
        previous_started_at=cycles[0].previous_started_at if cycles else None,
        truncated=found.truncated,
    )
    late = _late(reader, record, found)
    facts = _facts(record, found, waits, late, own, held=held, previous=previous)
    return _story(record, found, cycles, facts)


def _story(record: RestartRecord, found: _Span, cycles: Sequence[CycleStory], facts: RestartFacts) -> RestartStory:
    return RestartStory(
        restart=record,
        explanation=explain_restart(facts),
        cause=record.cause,
        window=_window(record, facts),
        cycles=cycles,
        counts=Counts(
            writes=record.writes,
            files=record.files,
            requests=record.requests if found.truncated else len(found.requests),
            actors=len(found.actors),
        ),
        top_paths=[PathCount(path=path, writes=count) for path, count in _top(found.paths)],
        actors=[ActorCount(actor=actor, events=count) for actor, count in _top(found.actors)],
        requests=found.requests[:_TOP],
        waited=facts.waits,
        late_writes=facts.late,
        held=facts.held,
        next_try_at=facts.next_try_at,
        truncated=found.truncated,
    )


def _window(record: RestartRecord, facts: RestartFacts) -> WindowStory:
    return WindowStory(
        opened_at=record.opened_at,
        first_write_at=facts.first_write_at,
        last_write_at=facts.last_write_at,
        due_at=record.due_at,
        queued_at=record.queued_at,
        quiet_ms=record.quiet_ms,
        max_wait_ms=record.max_wait_ms,
        max_count=record.max_count,
        edge=record.edge,
        min_interval_ms=record.min_interval_ms,
        policy_version=record.policy_version,
    )


def _facts(
    record: RestartRecord,
    found: _Span,
    waits: Sequence[Wait],
    late: LateWrites,
    own: Sequence[ev.Recorded],
    *,
    held: str | None,
    previous: RestartRecord | None,
) -> RestartFacts:
    cancelled = next((event for event in own if isinstance(event.data, ev.RestartCancelled)), None)
    gave_up = next((event.data for event in own if isinstance(event.data, ev.RestartGaveUp)), None)
    last = found.writes[-1].recorded_at if found.writes and not found.truncated else record.last_write_at
    return RestartFacts(
        record=record,
        first_write_at=found.writes[0].recorded_at if found.writes else None,
        last_write_at=last,
        actors=len(found.writers),
        actors_are_all=not found.truncated,
        requests=found.requests,
        waits=waits,
        late=late,
        previous=previous.id if previous else None,
        held=held,
        next_try_at=gave_up.next_try_at if gave_up else None,
        ended_by=cancelled.actor if cancelled else None,
        end_reason=getattr(cancelled.data, "reason", None) if cancelled else None,
    )


def _hold_now(reader: Reader, record: RestartRecord) -> str | None:
    """Return the reason of the hold that keeps an unsettled restart back now."""
    stored = None if record.state in SETTLED else reader.workspace(record.workspace)
    return stored.state.hold.reason if stored and stored.state.hold else None


def _previous(reader: Reader, record: RestartRecord) -> RestartRecord | None:
    """Return the restart before this one if it gave up, so that this one took over what it held."""
    wanted = RestartFilter(workspace=record.workspace, before=record.queued_position, limit=1)
    found = reader.restarts(wanted)
    return found[0] if found and found[0].state is RestartState.GAVE_UP else None


def _judged(writes: Sequence[ev.Recorded], previous: RestartRecord | None) -> list[ev.Recorded]:
    """Return the writes that the window was judged by: after a give-up, only newer ones (CONTRACT section 2)."""
    gave_up_at = previous.ended_at if previous else None
    return [event for event in writes if gave_up_at is None or event.recorded_at > gave_up_at]


def _span(reader: Reader, record: RestartRecord, end: int | None) -> _Span:
    """Read the workspace's log from the window's first event to the restart's end (None: it has none yet)."""
    found = _Span(to_position=record.to_position)
    read, after = 0, record.from_position - 1
    for event in _events(reader, record.workspace, (*_WRITES, *_HOLDS), after=after, to_position=end):
        found.add(event)
        read, after = read + 1, event.position
    found.truncated = read >= MOST_EVENTS and after < record.to_position
    if read >= MOST_EVENTS:
        for event in _events(reader, record.workspace, _HOLDS, after=after, to_position=end):
            found.add(event)
        for event in _events(reader, record.workspace, _WRITES, after=max(after, record.to_position), to_position=end):
            found.add(event)
    return found


def _late(reader: Reader, record: RestartRecord, found: _Span) -> LateWrites:
    """Return what arrived between the last cycle's start and its end, and which restart that went to."""
    if record.state is not RestartState.SUCCEEDED or record.shadow or not found.late:
        return LateWrites()
    # They all fell into one window, so one restart's range holds them all, or one waiver.
    first = found.late[0].position
    holder = reader.restart_holding(record.workspace, first)
    waived = holder is None and reader.waived(record.workspace, first) is not None
    return LateWrites(
        writes=len(found.late),
        restart=holder.id if holder else None,
        state=holder.state if holder else None,
        waived=waived,
    )


def _events(
    reader: Reader, workspace: str, types: Sequence[str], *, after: int, to_position: int | None = None
) -> Iterator[ev.Recorded]:
    """Yield the workspace's events of these types, page by page, at most ``MOST_EVENTS``."""
    read = 0
    while read < MOST_EVENTS:
        limit = min(_PAGE, MOST_EVENTS - read)
        wanted = EventFilter(after=after, to_position=to_position, workspace=workspace, types=types, limit=limit)
        page = reader.events(wanted)
        yield from page
        read += len(page)
        if len(page) < limit:
            return
        after = page[-1].position


def _request(event: ev.Recorded, data: ev.RestartRequested) -> Request:
    return Request(
        id=event.id, trigger=data.trigger, actor=event.actor, reason=data.reason, requested_at=event.recorded_at
    )


def _top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
