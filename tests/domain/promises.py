"""CONTRACT section 4, checked from the events alone, in another way than the core takes: over plain lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.encoding import (
    decode_data,
    decode_old_state,
    decode_state,
    encode_data,
    encode_old_state,
    encode_state,
)
from orchestrator.domain.event_types import FACT_TYPES
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import Action, Edge, Policy
from orchestrator.domain.restart_projection import RestartProjection, project, restart_of
from orchestrator.domain.state import WorkspaceState
from tests.domain.given_when_then import Scenario

Range = tuple[int, int]


def writes_in(log: Sequence[ev.Recorded]) -> list[int]:
    """The positions of the writes that must be followed by a restart."""
    return [e.position for e in log if isinstance(e.data, ev.FileWritten) and e.data.action is not Action.RECORD]


def requests_in(log: Sequence[ev.Recorded], *triggers: ev.Trigger) -> list[int]:
    wanted = triggers or tuple(ev.Trigger)
    return [e.position for e in log if isinstance(e.data, ev.RestartRequested) and e.data.trigger in wanted]


def inside(positions: Sequence[int], ends: Range) -> int:
    return sum(ends[0] <= position <= ends[1] for position in positions)


def settled_ranges(log: Sequence[ev.Recorded]) -> list[Range]:
    """The covered and waived ranges, in the order in which they were settled."""
    ranges: dict[str, Range] = {}
    settled: list[Range] = []
    for event in log:
        match event.data:
            case ev.CycleStarted() as started:
                ranges[started.cycle] = (started.from_position, started.to_position)
            case ev.CycleSucceeded(cycle=cycle):
                settled.append(ranges[cycle])
            case ev.WritesWaived() as waived:
                settled.append((waived.from_position, waived.to_position))
    return settled


def s1_every_write_is_exactly_one_of_covered_waived_pending(run: Scenario) -> None:
    settled = settled_ranges(run.log)
    last = max((to for _, to in settled), default=0)
    for position in writes_in(run.log) + requests_in(run.log):
        assert sum(inside([position], ends) for ends in settled) == (1 if position <= last else 0)
    assert run.state.pending_writes == sum(position > last for position in writes_in(run.log))
    assert run.state.pending_requests == sum(position > last for position in requests_in(run.log))


def s2_counts_are_what_the_ranges_hold(run: Scenario) -> None:
    ranges: dict[str, Range] = {}
    for index, event in enumerate(run.log):
        before = run.log[:index]
        match event.data:
            case ev.RestartQueued() as queued:
                ends = (queued.from_position, queued.to_position)
                assert queued.writes == inside(writes_in(before), ends)
                assert queued.requests == inside(requests_in(before), ends)
                assert queued.writes + queued.requests > 0
            case ev.CycleStarted() as started:
                ranges[started.cycle] = (started.from_position, started.to_position)
                assert started.writes == inside(writes_in(before), ranges[started.cycle])
                assert started.requests == inside(requests_in(before), ranges[started.cycle])
                assert started.to_position == max(writes_in(before) + requests_in(before))
            case ev.CycleSucceeded() as ended:
                assert ended.writes == inside(writes_in(before), ranges[ended.cycle])
            case ev.WritesWaived() as waived:
                assert waived.writes == inside(writes_in(before), (waived.from_position, waived.to_position))


def s3_never_two_live_cycles_and_every_end_carries_the_current_fence(run: Scenario) -> None:
    live: ev.CycleStarted | None = None
    fence = 0
    for event in run.log:
        match event.data:
            case ev.CycleStarted() as started:
                assert live is None
                live, fence = started, started.fence
            case ev.CycleSucceeded() | ev.CycleFailed() | ev.CycleAbandoned() as ended:
                assert live is not None
                assert (ended.restart, ended.cycle, ended.fence) == (live.restart, live.cycle, live.fence)
                live = None
            case ev.LateResultRejected() as late:
                assert live is None or (late.cycle, late.fence) != (live.cycle, live.fence)
                assert late.current_fence == fence


def s4_first_cycles_are_spaced_and_retries_wait(run: Scenario) -> None:
    queued: ev.RestartQueued | None = None
    retry_at: datetime | None = None
    starts: list[ev.CycleStarted] = []
    for event in run.log:
        match event.data:
            case ev.RestartQueued() as data:
                queued, retry_at = data, None
            case ev.CycleFailed() as failed:
                retry_at = failed.retry_at
            case ev.RestartRequested(trigger=ev.Trigger.MANUAL):
                retry_at = None
            case ev.CycleStarted() as started:
                assert queued is not None
                if started.attempt > 1:
                    assert retry_at is None or started.started_at >= retry_at
                elif starts and not _first_to_hold_a_manual(run, started, starts):
                    spaced = starts[-1].started_at + timedelta(milliseconds=queued.min_interval_ms)
                    assert started.started_at >= spaced
                starts.append(started)


def _first_to_hold_a_manual(run: Scenario, started: ev.CycleStarted, earlier: Sequence[ev.CycleStarted]) -> bool:
    manual = requests_in(run.log, ev.Trigger.MANUAL)
    held = [position for position in manual if started.from_position <= position <= started.to_position]
    return any(not any(inside([position], (e.from_position, e.to_position)) for e in earlier) for position in held)


@dataclass
class Diary:
    """What waits and what is under way, from the events so far, as a person would write it down."""

    writes: list[tuple[datetime, ev.FileWritten]] = field(default_factory=list)
    asked: list[tuple[datetime, ev.Trigger]] = field(default_factory=list)
    waits_folded: bool = False
    unsettled: bool = False
    held: bool = False
    opened_idle: bool = False
    last_start: datetime | None = None
    next_try: datetime | None = None

    def note(self, event: ev.Recorded) -> None:  # noqa: C901 (one flat table of events reads best)
        match event.data:
            case ev.FileWritten(action=action) as written if action is not Action.RECORD:
                if not self.writes:
                    self.opened_idle = not (self.asked or self.waits_folded or self.unsettled or self.held)
                self.writes.append((event.recorded_at, written))
            case ev.RestartRequested(trigger=trigger):
                self.asked.append((event.recorded_at, trigger))
            case ev.RestartQueued():
                self.writes, self.asked = [], []
                self.waits_folded, self.unsettled, self.next_try = True, True, None
            case ev.CycleStarted():
                self.writes, self.asked, self.last_start = [], [], event.recorded_at
            case ev.CycleSucceeded():
                self.waits_folded = self.unsettled = False
            case ev.RestartGaveUp(next_try_at=next_try_at):
                self.unsettled, self.next_try = False, next_try_at
            case ev.RestartCancelled():
                self.unsettled = False
            case ev.WorkspaceHeld():
                self.held = True
            case ev.WorkspaceReleased() | ev.WorkspaceRemoved():
                self.held = False
            case ev.WritesWaived(reason=reason):
                self.waits_folded, self.next_try = False, None
                if reason is ev.Waiver.WORKSPACE_REMOVED:
                    self.writes, self.asked = [], []

    def due(self, policy: Policy) -> tuple[datetime, ev.Cause]:
        """The earliest candidate; at equal times the first, since ``min`` keeps it."""
        return min(self._spaced(policy), key=lambda candidate: candidate[0])

    def _spaced(self, policy: Policy) -> Iterator[tuple[datetime, ev.Cause]]:
        for at, cause in self._candidates(policy):
            spaced = self.last_start is not None and cause is not ev.Cause.MANUAL
            yield (max(at, self._spacing_ends(policy)) if spaced else at), cause

    def _spacing_ends(self, policy: Policy) -> datetime:
        assert self.last_start is not None
        return self.last_start + timedelta(milliseconds=policy.min_interval_ms)

    def _candidates(self, policy: Policy) -> Iterator[tuple[datetime, ev.Cause]]:
        yield from ((at, ev.Cause.MANUAL) for at, trigger in self.asked if trigger is ev.Trigger.MANUAL)
        yield from ((at, ev.Cause.MUTATION) for at, trigger in self.asked if trigger is ev.Trigger.MUTATION)
        if not self.writes:
            yield from ((at, ev.Cause.PROBE) for at, trigger in self.asked if trigger is ev.Trigger.PROBE)
            yield from self._next_try()
            return
        if len(self.writes) >= policy.max_count:
            yield self.writes[policy.max_count - 1][0], ev.Cause.MAX_COUNT
        first = self.writes[0][0]
        spaced = self.last_start is None or self._spacing_ends(policy) <= first
        if policy.edge is Edge.LEADING and self.opened_idle and spaced:
            yield first, ev.Cause.LEADING
        yield max(_after(at, data.quiet_ms, policy.quiet_ms) for at, data in self.writes), ev.Cause.QUIET
        yield min(_after(at, data.max_wait_ms, policy.max_wait_ms) for at, data in self.writes), ev.Cause.MAX_WAIT
        yield from self._next_try()

    def _next_try(self) -> Iterator[tuple[datetime, ev.Cause]]:
        """What a give-up left waits for this, whatever came since."""
        if self.next_try is not None:
            yield self.next_try, ev.Cause.GAVE_UP


def _after(at: datetime, own_ms: int | None, policys_ms: int) -> datetime:
    return at + timedelta(milliseconds=policys_ms if own_ms is None else own_ms)


def s5_no_restart_is_queued_before_its_due_and_its_numbers_are_stored(run: Scenario) -> None:
    diary = Diary()
    same_max_count = len({policy.max_count for policy in run.policies}) == 1
    for event, policy in zip(run.log, run.policies, strict=True):
        if isinstance(event.data, ev.RestartQueued):
            data = event.data
            due_at, cause = diary.due(policy)
            assert not diary.held
            assert due_at <= data.due_at <= event.recorded_at
            # When a changed max_count was reached is not known exactly: the last write's instant stands in.
            if same_max_count:
                assert (data.due_at, data.cause) == (due_at, cause)
            assert (data.quiet_ms, data.max_wait_ms, data.max_count, data.edge, data.min_interval_ms) == (
                *(policy.quiet_ms, policy.max_wait_ms, policy.max_count, policy.edge, policy.min_interval_ms),
            )
        if isinstance(event.data, ev.CycleStarted):
            assert not diary.held
        diary.note(event)


def s6_one_unsettled_restart_and_ranges_that_tile(run: Scenario) -> None:
    unsettled: str | None = None
    for event in run.log:
        match event.data:
            case ev.RestartQueued(restart=restart):
                assert unsettled is None
                unsettled = restart
            case ev.CycleStarted(restart=restart):
                assert unsettled == restart
            case ev.CycleSucceeded(restart=restart) | ev.RestartGaveUp(restart=restart):
                assert unsettled == restart
                unsettled = None
            case ev.RestartCancelled(restart=restart):
                assert unsettled == restart
                unsettled = None
    next_from = 1
    for from_position, to_position in settled_ranges(run.log):
        assert from_position == next_from <= to_position
        next_from = to_position + 1


def s7_stamps_and_fences_strictly_rise(run: Scenario) -> None:
    starts = run.of_type(ev.CycleStarted)
    assert all(start.previous_started_at is None for start in starts[:1])
    for earlier, later in pairwise(starts):
        assert later.started_at > earlier.started_at
        assert later.fence > earlier.fence
        assert later.previous_started_at == earlier.started_at
        assert later.attempt == (earlier.attempt + 1 if later.restart == earlier.restart else 1)


def s9_every_cycle_belongs_to_a_restart_with_a_cause(run: Scenario) -> None:
    causes = {queued.restart: queued.cause for queued in run.of_type(ev.RestartQueued)}
    assert len(causes) == len(run.of_type(ev.RestartQueued))
    assert all(start.restart in causes for start in run.of_type(ev.CycleStarted))


def s10_replay_gives_the_same_state_and_restarts_byte_for_byte(run: Scenario) -> None:
    state = WorkspaceState(workspace="ws-1")
    restarts: dict[str, RestartProjection] = {}
    for event, policy in zip(run.log, run.policies, strict=True):
        text = encode_data(event.data)
        data = decode_data(event.type, event.data.SCHEMA, text)
        assert data == event.data
        assert encode_data(data) == text
        decoded = replace(event, data=data)
        state = evolve(state, decoded, policy)
        restart = restart_of(data)
        if restart is not None:
            record = project(restarts.get(restart), decoded, fleet="default")
            assert record is not None
            restarts[restart] = record
    assert encode_state(state) == encode_state(run.state)
    assert decode_state(encode_state(run.state), run.state.registration) == run.state
    old = encode_old_state(run.state)
    assert decode_old_state(old, registration_position=run.state.registration_position) == run.state
    assert encode_old_state(decode_old_state(old, registration_position=0)) == old
    assert restarts == run.restarts


def versions_have_no_gap_and_facts_have_none(run: Scenario) -> None:
    versions = [event.version for event in run.log if event.version is not None]
    assert versions == list(range(1, len(versions) + 1))
    assert run.state.version == len(versions)
    assert all((event.version is None) == (event.type in FACT_TYPES) for event in run.log)


SAFETY: tuple[Callable[[Scenario], None], ...] = (
    s1_every_write_is_exactly_one_of_covered_waived_pending,
    s2_counts_are_what_the_ranges_hold,
    s3_never_two_live_cycles_and_every_end_carries_the_current_fence,
    s4_first_cycles_are_spaced_and_retries_wait,
    s5_no_restart_is_queued_before_its_due_and_its_numbers_are_stored,
    s6_one_unsettled_restart_and_ranges_that_tile,
    s7_stamps_and_fences_strictly_rise,
    s9_every_cycle_belongs_to_a_restart_with_a_cause,
    s10_replay_gives_the_same_state_and_restarts_byte_for_byte,
    versions_have_no_gap_and_facts_have_none,
)


def assert_safe(run: Scenario) -> None:
    """All promises of safety that one workspace's log can show."""
    for promise in SAFETY:
        promise(run)
