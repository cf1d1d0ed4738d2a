"""Why a restart happened: its record, the sentence, and every fact that the sentence rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.audit.cycles import CycleStory, cycles_of
from orchestrator.audit.waits import holds_of, waits_of
from orchestrator.domain import events as ev
from orchestrator.domain.explain import LateWrites, Request, RestartFacts, Wait, explain_restart
from orchestrator.domain.policy import Action, Edge
from orchestrator.domain.restart_record import SETTLED, RestartRecord, RestartState
from orchestrator.errors import NotFound
from orchestrator.ports import EventFilter, Reader, RestartFilter

MOST_EVENTS = 10_000
"""A story reads at most this many events of its range; then it says ``truncated``."""

_PAGE = 1_000
_TOP = 10
_WRITES = ("FileWritten", "RestartRequested")
_DECISIONS = (
    *("RestartQueued", "CycleStarted", "CycleSucceeded", "CycleFailed", "CycleAbandoned", "LateResultRejected"),
    *("RestartGaveUp", "RestartCancelled"),
)
_ENDS = (ev.CycleSucceeded, ev.RestartGaveUp, ev.RestartCancelled)
_HOLDS = ("WorkspaceHeld", "WorkspaceReleased")


@dataclass(frozen=True, kw_only=True)
class WindowStory:
    """The window that was folded, and the numbers that were used to judge it."""

    opened_at: datetime
    first_write_at: datetime | None
    last_write_at: datetime | None
    due_at: datetime
    queued_at: datetime
    quiet_ms: int
    max_wait_ms: int
    max_count: int
    edge: Edge
    min_interval_ms: int
    policy_version: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much the restart answers for. ``actors`` counts who wrote or asked."""

    writes: int
    files: int
    requests: int
    actors: int


@dataclass(frozen=True, kw_only=True)
class PathCount:
    """How many of the restart's writes were to one path."""

    path: str
    writes: int


@dataclass(frozen=True, kw_only=True)
class ActorCount:
    """How many of the restart's writes and requests came from one actor."""

    actor: str
    events: int


@dataclass(frozen=True, kw_only=True)
class RestartStory:
    """The whole truth about one restart.

    ``truncated``: its range is too long to be read whole, so actors, top paths and requests count only the
    first ``MOST_EVENTS`` events of it. ``held`` is the reason of the hold that keeps it back now.
    """

    restart: RestartRecord
    explanation: str
    cause: ev.Cause
    window: WindowStory
    cycles: Sequence[CycleStory]
    counts: Counts
    top_paths: Sequence[PathCount]
    actors: Sequence[ActorCount]
    requests: Sequence[Request]
    waited: Sequence[Wait]
    late_writes: LateWrites
    held: str | None = None
    next_try_at: datetime | None = None
    truncated: bool = False


@dataclass
class _Range:
    """What the writes and requests of a restart's range add up to."""

    writes: list[ev.Recorded] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    writers: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    truncated: bool = False

    def add(self, event: ev.Recorded) -> None:
        data = event.data
        if isinstance(data, ev.FileWritten) and data.action is not Action.RECORD:
            self.writes.append(event)
            self.paths[data.path] += 1
            self.writers[event.actor] += 1
            self.actors[event.actor] += 1
        elif isinstance(data, ev.RestartRequested):
            self.requests.append(_request(event, data))
            self.actors[event.actor] += 1


def why(reader: Reader, restart: str) -> RestartStory:
    """Return the story of a restart; reads at most a few times ``MOST_EVENTS`` events. Raises ``NotFound``."""
    record = reader.restart(restart)
    if record is None:
        raise NotFound(f"restart {restart!r} does not exist; `orchestrator restarts` lists them")
    held = _hold_now(reader, record)
    own = _decisions(reader, record)
    holds = _holds(reader, record, own[-1].position if record.state in SETTLED else None)
    found = _range(reader, record)
    previous = _previous(reader, record)
    cycles = cycles_of(own)
    waits = waits_of(
        record,
        writes=_judged(found.writes, previous),
        requests=found.requests,
        holds=holds_of(holds, reader.now()),
        previous_started_at=cycles[0].previous_started_at if cycles else None,
        truncated=found.truncated,
    )
    late = _late(reader, record, own)
    facts = _facts(record, found, waits, late, own, held=held, previous=previous)
    return _story(record, found, cycles, facts)


def _story(record: RestartRecord, found: _Range, cycles: Sequence[CycleStory], facts: RestartFacts) -> RestartStory:
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
    found: _Range,
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


def _decisions(reader: Reader, record: RestartRecord) -> list[ev.Recorded]:
    """Return the decisions about the restart, from its queueing to its end."""
    found: list[ev.Recorded] = []
    for event in _events(reader, record.workspace, _DECISIONS, after=record.queued_position - 1):
        if getattr(event.data, "restart", None) != record.id:
            continue
        found.append(event)
        if isinstance(event.data, _ENDS):
            break
    return found


def _holds(reader: Reader, record: RestartRecord, to_position: int | None) -> list[ev.Recorded]:
    """Return the holds and releases of the workspace from the window's first event to the restart's end."""
    after = record.from_position - 1
    return list(_events(reader, record.workspace, _HOLDS, after=after, to_position=to_position))


def _range(reader: Reader, record: RestartRecord) -> _Range:
    found, read = _Range(), 0
    after, last = record.from_position - 1, record.to_position
    for event in _events(reader, record.workspace, _WRITES, after=after, to_position=last):
        found.add(event)
        read += 1
    found.truncated = read >= MOST_EVENTS
    return found


def _late(reader: Reader, record: RestartRecord, own: Sequence[ev.Recorded]) -> LateWrites:
    """Return what arrived between the last cycle's start and its end, and which restart that went to."""
    if record.state is not RestartState.SUCCEEDED or record.shadow:
        return LateWrites()
    end = own[-1].position
    events = _events(reader, record.workspace, ("FileWritten",), after=record.to_position, to_position=end)
    late = [event for event in events if getattr(event.data, "action", None) is not Action.RECORD]
    if not late:
        return LateWrites()
    # They all fell into one window, so one restart's range holds them all, or one waiver.
    first = late[0].position
    holder = reader.restart_holding(record.workspace, first)
    waived = holder is None and reader.waived(record.workspace, first) is not None
    return LateWrites(
        writes=len(late),
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
