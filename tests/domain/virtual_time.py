"""A small world in virtual time: a tick every second, and workers that may fail, die, freeze or speak twice.

It does with one scenario what beat and the drain loop do with a workspace: a report is followed at once by
a look at the window, and by the next start if one is ready.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.due import due
from tests.domain.given_when_then import Scenario, seconds


class End(StrEnum):
    """How a cycle goes in the worker's hands."""

    SUCCESS = "success"
    TWICE = "reported twice"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    KILLED = "killed, never heard of again"
    FROZEN = "frozen: no renewals, reports when it wakes"
    SHUT_DOWN = "given back"


@dataclass(frozen=True)
class Cycle:
    """One cycle to come: how long it takes, how it ends, and the jitter of its back-off."""

    seconds: float = 1
    end: End = End.SUCCESS
    jitter: float = 0.5


class World:
    """Runs a scenario from now on; cycles go as planned, those beyond the plan take a second and succeed."""

    def __init__(self, workspace: Scenario, cycles: Iterable[Cycle] = (), *, tick_s: float = 1) -> None:
        self.workspace, self.tick_s = workspace, tick_s
        self._planned = iter(cycles)
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._entries = 0
        self._renewing: set[str] = set()
        self._iteration = 0
        self._nobody_until_ms = 0
        self.at(seconds(workspace.now), self._tick)

    def at(self, at_seconds: float, action: Callable[[], object]) -> World:
        """Plan an action."""
        self._entries += 1
        heapq.heappush(self._agenda, (round(at_seconds * 1000), self._entries, lambda: void(action)))
        return self

    def run(self, until: float) -> World:
        """Let everything happen up to that second."""
        while self._agenda and self._agenda[0][0] <= until * 1000:
            at_ms, _, action = heapq.heappop(self._agenda)
            self.workspace.at(at_ms / 1000)
            action()
            self._claim()
            self._iteration = 0
        self.workspace.at(until)
        return self

    def nobody_until(self, at_seconds: float) -> None:
        """No worker claims anything until then."""
        self._nobody_until_ms = round(at_seconds * 1000)

    def report(self, cycle: ev.CycleStarted, planned: Cycle) -> None:
        """A worker reports. What comes too late changes nothing but the version, and is recorded (S3)."""
        before = self.workspace.state
        open_cycle = before.cycle.id if before.cycle else None
        if planned.end is End.SHUT_DOWN:
            self.workspace.shut_down(cycle)
        elif planned.end in (End.TRANSIENT, End.PERMANENT):
            kind = ev.ErrorKind.TRANSIENT if planned.end is End.TRANSIENT else ev.ErrorKind.PERMANENT
            self.workspace.fail(kind, jitter=planned.jitter, of=cycle)
        else:
            self.workspace.succeed(cycle)
        if open_cycle != cycle.cycle or before.fence != cycle.fence:
            assert [type(data) for data in self.workspace.led_to] == [ev.LateResultRejected]
            assert replace(before, version=before.version + 1) == self.workspace.state

    def _tick(self) -> None:
        state = self.workspace.state
        if state.cycle is not None and state.cycle.id in self._renewing:
            self.workspace.renew()
        self.workspace.tick()
        assert_not_stuck(self.workspace)
        self.at(seconds(self.workspace.now) + self.tick_s, self._tick)

    def _claim(self) -> None:
        now_ms = round(seconds(self.workspace.now) * 1000)
        if self.workspace.state.ready_at is None or now_ms < self._nobody_until_ms:
            return
        started = [
            data
            for data in self.workspace.start(iteration=self._iteration + 1).led_to
            if isinstance(data, ev.CycleStarted)
        ]
        for cycle in started:
            if not cycle.shadow:
                self._work(cycle, next(self._planned, Cycle()))

    def _work(self, cycle: ev.CycleStarted, planned: Cycle) -> None:
        if planned.end is not End.KILLED and planned.end is not End.FROZEN:
            self._renewing.add(cycle.cycle)
        ends = seconds(cycle.started_at) + planned.seconds
        if planned.end is not End.KILLED:
            self.at(ends, lambda: self._end(cycle, planned))
        if planned.end is End.TWICE:
            self.at(ends + 0.5, lambda: self._end(cycle, planned))

    def _end(self, cycle: ev.CycleStarted, planned: Cycle) -> None:
        self._renewing.discard(cycle.cycle)
        self._iteration = cycle.iteration
        self.report(cycle, planned)
        self.workspace.tick()


def void(action: Callable[[], object]) -> None:
    action()


def assert_not_stuck(workspace: Scenario) -> None:
    """L3: what waits has a due time, an unsettled restart, a lease or a hold."""
    state = workspace.state
    found = due(state, workspace.policy)
    assert not state.pending or state.restart is not None or state.hold is not None or found is not None
    if state.cycle is not None:
        assert workspace.lease_until is not None
        assert workspace.lease_until > workspace.now, "a tick rescues a passed lease"
    if found is not None:
        assert found.at > workspace.now, "a tick folds what is due"
