"""The cycles of one restart, each with its stamps and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.domain import events as ev


class Outcome(StrEnum):
    """How a cycle ended; ``running`` has not."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, kw_only=True)
class CycleStory:
    """One cycle. ``fenced``: its executor compares fences. ``error`` says why it did not succeed.

    ``policy_version`` is that of the policy in force at its start; None where nobody recorded it (schema 1).
    """

    cycle: str
    kind: ev.Kind
    attempt: int
    iteration: int
    fence: int
    fenced: bool
    worker: str
    started_at: datetime
    previous_started_at: datetime | None
    to_position: int
    policy_version: int | None
    ended_at: datetime | None = None
    duration_ms: int | None = None
    outcome: Outcome = Outcome.RUNNING
    error_kind: ev.ErrorKind | None = None
    error: str | None = None
    retry_at: datetime | None = None
    generation_before: str | None = None
    generation_after: str | None = None
    verified: bool = False
    shadow: bool = False
    late_results: int = 0


def cycles_of(events: Iterable[ev.Recorded]) -> list[CycleStory]:
    """Return the cycles that a restart's events tell of, in the order of their starts."""
    cycles: dict[str, CycleStory] = {}
    for event in events:
        data = event.data
        if isinstance(data, ev.CycleStarted):
            cycles[data.cycle] = _started(data)
            continue
        cycle = cycles.get(getattr(data, "cycle", ""))
        if cycle is not None:
            cycles[cycle.cycle] = _changed(cycle, data, event.recorded_at)
    return list(cycles.values())


def _started(data: ev.CycleStarted) -> CycleStory:
    return CycleStory(
        cycle=data.cycle,
        kind=data.kind,
        attempt=data.attempt,
        iteration=data.iteration,
        fence=data.fence,
        fenced=data.fenced,
        worker=data.worker,
        started_at=data.started_at,
        previous_started_at=data.previous_started_at,
        to_position=data.to_position,
        policy_version=data.policy_version,
        shadow=data.shadow,
    )


def _changed(cycle: CycleStory, data: ev.EventData, at: datetime) -> CycleStory:
    duration_ms = (at - cycle.started_at) // timedelta(milliseconds=1)
    match data:
        case ev.CycleSucceeded():
            return replace(
                cycle,
                outcome=Outcome.SUCCEEDED,
                ended_at=at,
                duration_ms=data.duration_ms,
                generation_before=data.generation_before,
                generation_after=data.generation_after,
                verified=data.verified,
            )
        case ev.CycleFailed():
            return replace(
                cycle,
                outcome=Outcome.FAILED,
                ended_at=at,
                duration_ms=data.duration_ms,
                error_kind=data.error_kind,
                error=data.message,
                retry_at=data.retry_at,
            )
        case ev.CycleAbandoned():
            return replace(
                cycle, outcome=Outcome.ABANDONED, ended_at=at, duration_ms=duration_ms, error=data.reason.value
            )
        case ev.LateResultRejected():
            return replace(cycle, late_results=cycle.late_results + 1)
    return cycle
