"""The one sentence that says why a restart happened, or what became of a write; the same in API, CLI and page.

Plain English; instants in UTC, with the day only where a sentence spans more than one. The facts come
from ``orchestrator.audit``, which reads them from the log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from orchestrator.domain.durations import format_duration
from orchestrator.domain.events import Abandonment, Cause, Kind, Trigger
from orchestrator.domain.own_writes import ROUNDS, remedy_of
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import SUPERVISED

_ABANDONED = {
    f"abandoned: {Abandonment.WORKER_DIED}": "the worker process died; what its command left running was ended",
    f"abandoned: {Abandonment.LEASE_EXPIRED}": (
        "abandoned: lease_expired; its worker was not heard of again, and where the cycle says `fenced: false` "
        "its command may have run beside the next"
    ),
}
_LONGEST_REASON = 200
_SHORT_WAIT_MS = 2_000
"""A start within two ticks of its time is no wait worth a clause."""


class FateStatus(StrEnum):
    """What became of a write or request; everything but ``pending`` is final."""

    PENDING = "pending"
    COVERED = "covered"
    WAIVED = "waived"
    RECORDED = "recorded"


class WaitReason(StrEnum):
    """What a restart waited for, in the order in which it happens.

    ``quiet``: for the window to close, by its cause (quiet itself, or ``max_wait``, ...); ``spacing``:
    ``min_interval`` since the last cycle start; ``hold``: a person's hold; ``concurrency``: the next tick, a free
    slot of a worker, a cap on cycles at once.
    """

    QUIET = "quiet"
    SPACING = "spacing"
    HOLD = "hold"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One wait: from when until when (None: it lasts), its length, and a hold's reason."""

    reason: WaitReason
    since: datetime
    until: datetime | None
    ms: int
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for a restart, as the log holds it."""

    id: str
    trigger: Trigger
    actor: str
    reason: str
    requested_at: datetime


@dataclass(frozen=True, kw_only=True)
class LateWrites:
    """What arrived during the last cycle: how many writes, and the restart that covers or holds them."""

    writes: int = 0
    restart: str | None = None
    state: RestartState | None = None
    waived: bool = False


@dataclass(frozen=True, kw_only=True)
class Unserved:
    """What nobody carries out, and since when."""

    executor: str
    pool: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class RestartFacts:
    """What the sentence about one restart needs.

    ``actors`` counts those of its writes, ``actors_are_all`` is False where the log was too long to count
    them all. ``previous`` is the given-up restart whose writes it took over. ``held`` is the reason of a
    hold in force now. ``ended_by`` and ``end_reason`` name a cancellation. ``own_writes`` are the files by which the
    program seems to restart itself.
    """

    record: RestartProjection
    first_write_at: datetime | None
    last_write_at: datetime | None
    actors: int
    actors_are_all: bool = True
    requests: Sequence[Request] = ()
    waits: Sequence[Wait] = ()
    late: LateWrites = field(default_factory=LateWrites)
    previous: str | None = None
    held: str | None = None
    unserved: Unserved | None = None
    next_try_at: datetime | None = None
    ended_by: str | None = None
    end_reason: str | None = None
    own_writes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class FateFacts:
    """What the sentence about one write or request needs. Instants and ids are None where they say nothing.

    ``due_at`` is when its restart is due at the latest, ``ready_at`` from when the restart that holds it may start.
    """

    status: FateStatus
    is_request: bool = False
    restart: str | None = None
    restart_state: RestartState | None = None
    cycle: str | None = None
    covered_after_ms: int | None = None
    shadow: bool = False
    due_at: datetime | None = None
    ready_at: datetime | None = None
    held: str | None = None
    unserved: Unserved | None = None
    rule: str | None = None
    waived_by: str | None = None
    removed: bool = False


def explain_restart(facts: RestartFacts) -> str:
    """Return why a restart happened, is about to, or did not."""
    record = facts.record
    clauses = [f"{_opening(record)} because {_because(facts)}", *_waited(facts), *_outcome(facts), *_itself(facts)]
    return "; ".join(clauses) + "."


def _itself(facts: RestartFacts) -> list[str]:
    if not facts.own_writes:
        return []
    first, more = facts.own_writes[0], len(facts.own_writes) - 1
    files = first + (f" and {more} more" if more else "")
    return [
        f"the program seems to restart itself: {files} was written as long after each of its last {ROUNDS} starts; "
        f"if that file is its own, {remedy_of(first)}"
    ]


def explain_fate(facts: FateFacts) -> str:
    """Return what became of a write or of a request."""
    match facts.status:
        case FateStatus.COVERED:
            how = "Covered in shadow mode (nothing was executed)" if facts.shadow else "Covered"
            after = length(facts.covered_after_ms or 0)
            made = "made" if facts.is_request else "written"
            return f"{how} by {facts.restart} (cycle {facts.cycle}), {after} after it was {made}."
        case FateStatus.RECORDED:
            return f"Recorded only, by rule {facts.rule}." if facts.rule else "Recorded only, by a path rule."
        case FateStatus.WAIVED:
            what = "workspace removed" if facts.removed else f"{facts.restart or 'its restart'} was cancelled"
            return f"Waived: {what} by {facts.waived_by}."
        case FateStatus.PENDING:
            return f"Pending: {_pending(facts)}."


def _pending(facts: FateFacts) -> str:
    if facts.held is not None and facts.restart_state is not RestartState.RUNNING:
        return f"the workspace is held ({quoted(facts.held)}); it is taken into one restart after the release"
    if facts.restart_state is RestartState.RUNNING:
        return f"{facts.restart} (cycle {facts.cycle}) is running and will cover it if it succeeds"
    if facts.unserved is not None:
        return f"{facts.restart} takes it along, but {_nobody(facts.unserved)}"
    if facts.ready_at is not None:
        return f"{facts.restart} takes it along and may start from {moment(facts.ready_at)} on"
    if facts.due_at is not None:
        return f"its restart is due at {moment(facts.due_at)} at the latest"
    return f"it is taken into the next restart, once {facts.restart or 'the running cycle'} has ended"


def _nobody(unserved: Unserved) -> str:
    what = f"executor {unserved.executor} in pool {unserved.pool}"
    if unserved.executor == SUPERVISED:
        return (
            f"its `up` is not there since {moment(unserved.since)}; start `orchestrator up --watch` of its folder again"
        )
    since = f"since {moment(unserved.since)}"
    return f"no worker serves {what} {since}; start one that does, or change the workspace's target"


def _opening(record: RestartProjection) -> str:
    reload = record.kind is Kind.RELOAD
    if record.shadow and record.state is RestartState.SUCCEEDED:
        return f"Would have been {'reloaded' if reload else 'restarted'} (shadow mode: nothing was executed)"
    verb, doing = ("reload", "Reloading") if reload else ("restart", "Restarting")
    return {
        RestartState.QUEUED: f"Queued to {verb}" if record.attempts == 0 else f"Queued again to {verb}",
        RestartState.RUNNING: doing,
        RestartState.RETRYING: f"Retrying to {verb}",
        RestartState.SUCCEEDED: f"{verb.capitalize()}ed",
        RestartState.GAVE_UP: f"Gave up {doing.lower()} after {counted(record.attempts, 'attempt')}; it was wanted",
        RestartState.CANCELLED: f"Cancelled before it could {verb}; it was wanted",
    }[record.state]


def _because(facts: RestartFacts) -> str:
    record, writes = facts.record, _writes(facts)
    asked = _asked(facts)
    if asked is None and record.cause is Cause.GAVE_UP:
        before = facts.previous or "an earlier restart"
        taken = f"; it takes over {writes}" if writes else ""
        return f"{before} had given up and its next try was due at {clock(record.due_at)}{taken}"
    if asked is None:
        return f"{writes or 'something'}{_closed(facts)}"
    return f"{asked}, together with {writes}" if writes else asked


def _asked(facts: RestartFacts) -> str | None:
    """Return who asked, where the cause is a request; None for windows of writes and for a give-up."""
    wanted = {Cause.MANUAL: Trigger.MANUAL, Cause.MUTATION: Trigger.MUTATION, Cause.PROBE: Trigger.PROBE}
    trigger = wanted.get(facts.record.cause)
    if trigger is None:
        return None
    of_trigger = [request for request in facts.requests if request.trigger is trigger]
    verb = {
        Trigger.MANUAL: "asked",
        Trigger.MUTATION: "reported a change",
        Trigger.PROBE: "reported a failed health probe",
    }[trigger]
    if not of_trigger:
        return f"somebody {verb}"
    first = of_trigger[0]
    reason = f": {quoted(first.reason)}" if first.reason.strip() else ""
    more = f" (and {counted(len(of_trigger) - 1, 'more request')})" if len(of_trigger) > 1 else ""
    return f"{first.actor} {verb}{reason}{more}"


def _writes(facts: RestartFacts) -> str | None:
    """Return ``17 writes to 9 files by 2 actors between 14:02:01 and 14:02:46``; None if there are none."""
    record = facts.record
    if record.writes == 0:
        return None
    text = f"{counted(record.writes, 'write')} to {counted(record.files, 'file')}"
    if facts.actors:
        more = "" if facts.actors_are_all else "at least "
        text += f" by {more}{counted(facts.actors, 'actor')}"
    first, last = facts.first_write_at, facts.last_write_at
    if first is None or last is None:
        return text
    if first.replace(microsecond=0) == last.replace(microsecond=0):
        return f"{text} at {clock(first)}"
    if first.astimezone(UTC).date() != last.astimezone(UTC).date():
        return f"{text} between {moment(first)} and {moment(last)}"
    return f"{text} between {clock(first)} and {clock(last)}"


def _closed(facts: RestartFacts) -> str:
    """Return what closed the window of writes, and how long it was open."""
    cause = facts.record.cause
    if cause is Cause.LEADING:
        return "; the first write of an idle workspace is due at once (edge leading)"
    window = next((wait for wait in facts.waits if wait.reason is WaitReason.QUIET), None)
    after = f" after {length(window.ms)}" if window else ""
    count = f" of {facts.record.max_count}" if cause is Cause.MAX_COUNT else ""
    return f"; the window closed by {cause.value}{count}{after}"


def _waited(facts: RestartFacts) -> list[str]:
    clauses = []
    for wait in facts.waits:
        if wait.reason is WaitReason.SPACING:
            clauses.append(f"held back {length(wait.ms)} by min_interval")
        elif wait.reason is WaitReason.HOLD and wait.until is not None:
            clauses.append(f"held back {length(wait.ms)} by a hold ({quoted(wait.detail or 'no reason given')})")
        elif wait.reason is WaitReason.CONCURRENCY and wait.until is not None and wait.ms >= _SHORT_WAIT_MS:
            clauses.append(f"waited {length(wait.ms)} for a free worker")
    return clauses


def _outcome(facts: RestartFacts) -> list[str]:
    record = facts.record
    held = [f"the workspace is held now ({quoted(facts.held)})"] if facts.held is not None else []
    if not held and facts.unserved is not None:
        held = [_nobody(facts.unserved)]
    error = f" ({_said(record.error)})" if record.error else ""
    match record.state:
        case RestartState.SUCCEEDED:
            attempts = [f"it took {record.attempts} attempts"] if record.attempts > 1 else []
            return attempts + _late(facts.late)
        case RestartState.RUNNING:
            started = f" since {clock(record.started_at)}" if record.started_at else ""
            return [f"attempt {record.attempts} has been running{started}"]
        case RestartState.QUEUED:
            again = [f"attempt {record.attempts} ended without a result{error}"] if record.attempts else []
            return again + (held or ["it starts as soon as a worker is free"])
        case RestartState.RETRYING:
            at = f"; the next attempt is due at {clock(record.retry_at)}" if record.retry_at else ""
            return [f"attempt {record.attempts} failed{error}{at}", *held]
        case RestartState.GAVE_UP:
            at = f" and are tried again at {moment(facts.next_try_at)}" if facts.next_try_at else ""
            return [f"the last attempt failed{error}", f"its writes and requests stay pending{at}"]
        case RestartState.CANCELLED:
            reason = f": {quoted(facts.end_reason)}" if facts.end_reason else ""
            return [f"cancelled by {facts.ended_by or 'somebody'}{reason}", "what it held was waived"]


def _said(error: str) -> str:
    """Return what ended an attempt, in words where the log has a name for it."""
    return _ABANDONED.get(error) or quoted(error)


def _late(late: LateWrites) -> list[str]:
    if late.writes == 0:
        return []
    them = f"{counted(late.writes, 'write')} that arrived during the cycle"
    verb = "is" if late.writes == 1 else "are"
    if late.restart is not None and late.state is RestartState.SUCCEEDED:
        return [f"{them} {verb} covered by {late.restart}"]
    if late.restart is not None:
        return [f"{them} {'belongs' if late.writes == 1 else 'belong'} to {late.restart}, which is {late.state}"]
    if late.waived:
        return [f"{them} {'was' if late.writes == 1 else 'were'} waived"]
    return [f"{them} {'waits' if late.writes == 1 else 'wait'} for the next restart"]


def counted(count: int, noun: str) -> str:
    """Return ``1 write``, ``17 writes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def length(ms: int) -> str:
    """Return a length of time as the sentence says it: ``60 s``, ``0.4 s``, ``5m30s`` above two minutes."""
    if ms >= 120_000:
        return format_duration(round(ms / 1000) * 1000)
    return f"{round(ms / 1000)} s" if ms >= 10_000 else f"{round(ms / 1000, 1):g} s"


def clock(at: datetime) -> str:
    """Return the time of day in UTC, ``14:02:01``."""
    return at.astimezone(UTC).strftime("%H:%M:%S")


def moment(at: datetime) -> str:
    """Return day and time in UTC, ``2026-11-23 14:02:01``."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def quoted(text: str) -> str:
    """Return a person's words fit for the middle of a sentence: one line, without its full stop, not too long."""
    line = re.sub(r"\s+", " ", text).strip().rstrip(".;")
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"
