"""What a restart waited for, and for how long: the window, the spacing, holds, a free worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain import events as ev
from orchestrator.domain.explain import Request, Wait, WaitReason
from orchestrator.domain.restart_projection import RestartProjection

_FINEST = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class HoldPeriod:
    """A hold from its start (None: before the events that were read) to its release (None: in force)."""

    since: datetime | None
    until: datetime | None
    now: datetime
    reason: str


def holds_of(events: Iterable[ev.Recorded], now: datetime) -> list[HoldPeriod]:
    """Return the holds that these events begin or end; a hold replaced by another is one period each."""
    holds: list[HoldPeriod] = []
    begun: tuple[datetime | None, str] | None = None
    first = True
    for event in events:
        data, at = event.data, event.recorded_at
        if isinstance(data, ev.WorkspaceHeld):
            if begun is not None:
                holds.append(HoldPeriod(since=begun[0], until=at, now=now, reason=begun[1]))
            begun = (at, data.reason)
        elif isinstance(data, ev.WorkspaceReleased):
            if begun is None and first:
                begun = (None, "")
            if begun is not None:
                holds.append(HoldPeriod(since=begun[0], until=at, now=now, reason=begun[1]))
            begun = None
        first = False
    if begun is not None:
        holds.append(HoldPeriod(since=begun[0], until=None, now=now, reason=begun[1]))
    return holds


def waits_of(
    record: RestartProjection,
    *,
    writes: Sequence[ev.Recorded],
    requests: Sequence[Request],
    holds: Sequence[HoldPeriod],
    previous_started_at: datetime | None,
    truncated: bool,
) -> list[Wait]:
    """Return the waits of a restart in the order in which they happen, without those of no length.

    ``writes`` are those that the window was judged by. Where ``truncated``, the window is taken to
    close when it was due.
    """
    closed_at = record.due_at if truncated else min(_closed_at(record, writes, requests), record.due_at)
    waits = [_wait(WaitReason.QUIET, record.opened_at, closed_at)]
    if previous_started_at is not None:
        waits.append(_wait(WaitReason.SPACING, closed_at, record.due_at))
    free_from = max(record.due_at, record.opened_at)
    for hold in holds:
        held = _held(hold, record, free_from)
        if held is not None:
            waits.append(held)
            free_from = max(free_from, held.until or hold.now)
    if record.first_started_at is not None:
        waits.append(_wait(WaitReason.CONCURRENCY, free_from, record.first_started_at))
    return [wait for wait in waits if wait.ms > 0]


def _wait(reason: WaitReason, since: datetime, until: datetime) -> Wait:
    return Wait(reason=reason, since=since, until=until, ms=max(0, (until - since) // _FINEST))


def _held(hold: HoldPeriod, record: RestartProjection, free_from: datetime) -> Wait | None:
    """Return how long a hold kept the restart back: from when it was due at the earliest to the release."""
    since = max(free_from, hold.since) if hold.since is not None else free_from
    started = record.first_started_at
    if started is not None and started <= since:
        return None
    until = hold.until if hold.until is not None else hold.now
    if until <= since:
        return None
    ms = (until - since) // _FINEST
    return Wait(reason=WaitReason.HOLD, since=since, until=hold.until, ms=ms, detail=hold.reason or None)


def _closed_at(record: RestartProjection, writes: Sequence[ev.Recorded], requests: Sequence[Request]) -> datetime:
    """Return when the cause came about, before the spacing was applied (CONTRACT section 2, "due")."""
    queued = [event for event in writes if event.recorded_at <= record.queued_at]
    asked = [request.requested_at for request in requests if request.trigger.value == record.cause.value]
    match record.cause:
        case ev.Cause.MANUAL | ev.Cause.MUTATION | ev.Cause.PROBE:
            return min(asked, default=record.due_at)
        case ev.Cause.QUIET:
            ends = [event.recorded_at + _own(event, "quiet_ms", record.quiet_ms) for event in queued]
            return max(ends, default=record.due_at)
        case ev.Cause.MAX_WAIT:
            ends = [event.recorded_at + _own(event, "max_wait_ms", record.max_wait_ms) for event in queued]
            return min(ends, default=record.due_at)
        case ev.Cause.MAX_COUNT if len(queued) >= record.max_count:
            return queued[record.max_count - 1].recorded_at
        case ev.Cause.LEADING if queued:
            return queued[0].recorded_at
    return record.due_at


def _own(event: ev.Recorded, name: str, otherwise_ms: int) -> timedelta:
    """Return a write's own number, set by a rule, or else the policy's."""
    own = getattr(event.data, name)
    return timedelta(milliseconds=otherwise_ms if own is None else own)
