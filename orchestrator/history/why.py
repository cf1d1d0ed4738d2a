"""Why a restart happened: its record, the sentence, and every fact that the sentence rests on.

Four statements, whatever the history's length: the record, its part of the log, the starts before it, and the restart
that covers what came late; for an unsettled one the workspace's row too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestrator.domain import events as ev
from orchestrator.domain.explain import LateWrites, RestartFacts, Unserved, Wait, explain_restart
from orchestrator.domain.restart_projection import SETTLED, RestartProjection, RestartState
from orchestrator.errors import NotFound
from orchestrator.history.cycles import CycleStory, cycles_of
from orchestrator.history.fate import unserved_of
from orchestrator.history.own_writes import own_writes
from orchestrator.history.restart_span import RestartSpan, read_span
from orchestrator.history.restart_story import ActorCount, Counts, PathCount, RestartStory, WindowStory
from orchestrator.history.waits import holds_of, waits_of
from orchestrator.ports.store import Reader

_TOP = 10


def why(reader: Reader, restart: str) -> RestartStory:
    """Return the story of a restart; reads at most a few times ``MOST_EVENTS`` events. Raises ``NotFound``."""
    record = reader.restart(restart)
    if record is None:
        raise NotFound(f"restart {restart!r} does not exist; `orchestrator restarts` lists them")
    held, unserved = _kept_back_now(reader, record)
    found = read_span(reader, record)
    cycles = cycles_of(found.own)
    waits = waits_of(
        record,
        writes=found.judged,
        requests=found.requests,
        holds=holds_of(found.holds, found.end.recorded_at if found.end else reader.clock()),
        previous_started_at=cycles[0].previous_started_at if cycles else None,
        truncated=found.truncated,
    )
    facts = _facts(reader, record, found, waits, _late(reader, record, found), held=held, unserved=unserved)
    return _story(record, found, cycles, facts)


def _story(
    record: RestartProjection, found: RestartSpan, cycles: Sequence[CycleStory], facts: RestartFacts
) -> RestartStory:
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
        own_writes=facts.own_writes,
    )


def _window(record: RestartProjection, facts: RestartFacts) -> WindowStory:
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
    reader: Reader,
    record: RestartProjection,
    found: RestartSpan,
    waits: Sequence[Wait],
    late: LateWrites,
    *,
    held: str | None,
    unserved: Unserved | None,
) -> RestartFacts:
    cancelled = next((event for event in found.own if isinstance(event.data, ev.RestartCancelled)), None)
    gave_up = next((event.data for event in found.own if isinstance(event.data, ev.RestartGaveUp)), None)
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
        previous=found.gave_up.correlation_id if found.gave_up else None,
        held=held,
        unserved=unserved,
        next_try_at=gave_up.next_try_at if gave_up else None,
        ended_by=cancelled.actor if cancelled else None,
        end_reason=getattr(cancelled.data, "reason", None) if cancelled else None,
        own_writes=own_writes(reader, record) if found.writes else (),
    )


def _kept_back_now(reader: Reader, record: RestartProjection) -> tuple[str | None, Unserved | None]:
    """Return what keeps an unsettled restart back now: a hold by its reason, or that nobody serves it."""
    stored = None if record.state in SETTLED else reader.workspace(record.workspace)
    if stored is None:
        return None, None
    return stored.state.hold.reason if stored.state.hold else None, unserved_of(stored)


def _late(reader: Reader, record: RestartProjection, found: RestartSpan) -> LateWrites:
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


def _top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
