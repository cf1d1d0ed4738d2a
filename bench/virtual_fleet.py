"""A thousand workspaces in virtual time: people who save, a coalescer that ticks, workers that may fail, die or freeze.

Everything is planned on one agenda and drawn from one seed, so the same number of events is always the same log.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from random import Random

from bench.virtual_log import START, VirtualLog
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import may_start
from orchestrator.domain.due import due
from orchestrator.domain.state import WorkspaceState
from orchestrator.storage.sql.workspace_rows import fleet_of

_MICROSECOND = timedelta(microseconds=1)


class End(Enum):
    """How a cycle goes in the worker's hands."""

    SUCCESS = "success"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    PERMANENT = "permanent"
    KILLED = "killed, never heard of again"
    FROZEN = "frozen: no renewals, reports when it wakes"
    SHUT_DOWN = "given back"


_PER_MILLE = {
    End.SUCCESS: 954,
    End.TRANSIENT: 30,
    End.TIMEOUT: 4,
    End.PERMANENT: 3,
    End.KILLED: 4,
    End.FROZEN: 2,
    End.SHUT_DOWN: 3,
}
_ERRORS = {
    End.TRANSIENT: (ev.ErrorKind.TRANSIENT, "exit code 1: port 8080 is already in use"),
    End.TIMEOUT: (ev.ErrorKind.TIMEOUT, "not ready after 25 s"),
    End.PERMANENT: (ev.ErrorKind.PERMANENT, "exit code 127: no such command"),
}


class VirtualFleet:
    """The coalescer and the workers of all workspaces; what people do is planned on it from outside."""

    def __init__(self, log: VirtualLog, random: Random) -> None:
        self.log, self._random = log, random
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._entries = 0
        self._ticks: dict[str, datetime] = {}
        self._claims: set[str] = set()
        self._drained: dict[str, int] = {}
        self._unrenewed: set[str] = set()
        self._queues: dict[str, deque[str]] = {}
        self._running: dict[str, int] = {}

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action so many seconds from now."""
        at_us = (self.log.now - START) // _MICROSECOND + max(1, round(seconds * 1e6))
        self._entries += 1
        heapq.heappush(self._agenda, (at_us, self._entries, action))

    def run(self, events: int) -> None:
        """Let things happen until the log has so many events, or up to three more: a transaction is whole."""
        while self.log.count < events:
            at_us, _, action = heapq.heappop(self._agenda)
            self.log.at(START + timedelta(microseconds=at_us))
            action()

    def follow(self, workspace: str) -> None:
        """Plan what comes of a change: a worker's claim, or the next look of the coalescer."""
        state, now = self.log.state(workspace), self.log.now
        ready_at = state.ready_at
        if ready_at is not None and workspace not in self._claims:
            self._claims.add(workspace)
            bell = self._random.uniform(0.002, 0.2)
            self.after((max(ready_at, now) - now).total_seconds() + bell, partial(self._claim, workspace))
        wakes_at = self._wakes_at(state)
        planned = self._ticks.get(workspace)
        if wakes_at is not None and (planned is None or wakes_at < planned):
            self._ticks[workspace] = wakes_at
            self._plan_tick(workspace, wakes_at)

    def written(self, workspace: str, *, ruled: bool) -> None:
        """Plan what comes of a write. Only a window's first, its ``max_count``-th, one with a rule's own numbers, and
        one after a give-up, whose newer writes are judged alone, can bring a look forward.
        """
        state = self.log.state(workspace)
        window = state.window
        writes = window.writes.all.count if window.writes else 0
        most = self.log.policy(workspace).max_count
        is_first = workspace not in self._ticks or state.next_try is not None
        if ruled or is_first or writes <= 1 or writes >= most:
            self.follow(workspace)

    def policy_changed(self) -> None:
        """Plan every look anew: a policy may bring a window's due instant forward."""
        for workspace in self.log.states:
            self.follow(workspace)

    def _wakes_at(self, state: WorkspaceState) -> datetime | None:
        found = due(state, self.log.policy(state.workspace))
        instants = [
            found.at if found else None,
            state.hold.until if state.hold else None,
            self._lease_until(state),
        ]
        return min((at for at in instants if at is not None), default=None)

    def _lease_until(self, state: WorkspaceState) -> datetime | None:
        """Return when the lease of a cycle ends that nobody renews."""
        cycle = state.cycle
        return self.log.leases[state.workspace].until if cycle is not None and cycle.id in self._unrenewed else None

    def _plan_tick(self, workspace: str, wakes_at: datetime) -> None:
        late = self._random.uniform(0.001, 0.05)
        wait = max(0.0, (wakes_at - self.log.now).total_seconds())
        self.after(wait + late, partial(self._look, workspace, wakes_at))

    def _look(self, workspace: str, planned: datetime) -> None:
        if self._ticks.get(workspace) != planned:
            return  # a nearer look has replaced this one
        del self._ticks[workspace]
        wakes_at = self._wakes_at(self.log.state(workspace))
        if wakes_at is not None and wakes_at <= self.log.now:
            self._tick(workspace)
        self.follow(workspace)

    def _tick(self, workspace: str) -> None:
        files = self.log.waiting_files(workspace)
        before = self.log.state(workspace)
        lease_until = self._lease_until(before)
        tick = cmd.Tick(restart_id=self.log.ids.new("rst"), files=files, lease_until=lease_until)
        self.log.carry_out(workspace, tick)
        self.count_ended(before)

    def _claim(self, workspace: str) -> None:
        self._claims.discard(workspace)
        state, policy, now = self.log.state(workspace), self.log.policy(workspace), self.log.now
        fleet = fleet_of(state)
        if not may_start(state, policy, now, cmd.UNBOUNDED):
            self._offer_place(fleet)
            self.follow(workspace)
            return
        capacity = cmd.Capacity(running_in_fleet=self._running.get(fleet, 0))
        if not may_start(state, policy, now, capacity):
            self._queues.setdefault(fleet, deque()).append(workspace)
            self._claims.add(workspace)
            return
        command = cmd.StartCycle(
            cycle_id=self.log.ids.new("cyc"),
            worker=f"host-{self._random.randrange(4)}:{self._random.randrange(100, 104)}",
            iteration=self._drained.pop(workspace, 0) + 1,
            files=self.log.waiting_files(workspace),
            capacity=capacity,
        )
        started = self.log.carry_out(workspace, command)[0]
        if isinstance(started, ev.CycleStarted) and not started.shadow:
            self._running[fleet] = self._running.get(fleet, 0) + 1
            self._work(workspace, started)
        self.follow(workspace)

    def _work(self, workspace: str, started: ev.CycleStarted) -> None:
        end = self._random.choices(list(_PER_MILLE), list(_PER_MILLE.values()))[0]
        seconds = min(25.0, 0.8 + self._random.expovariate(1 / 3))
        if end in (End.KILLED, End.FROZEN):
            self._unrenewed.add(started.cycle)
        if end is End.FROZEN:
            seconds = self._random.uniform(35, 90)
        if end is End.TIMEOUT:
            seconds = 25.0
        if end is not End.KILLED:
            self.after(seconds, partial(self._report, workspace, started, end))

    def _report(self, workspace: str, started: ev.CycleStarted, end: End) -> None:
        """Record the end of a cycle and look at the window, as the drain loop does."""
        before = self.log.state(workspace)
        self.log.carry_out(workspace, self._ended(started, end))
        after = self.log.state(workspace)
        self.count_ended(before)
        if after.restart is None and after.registered:
            self._tick(workspace)
        ready_at = self.log.state(workspace).ready_at
        if ready_at is not None and ready_at <= self.log.now:
            self._drained[workspace] = started.iteration
        self.follow(workspace)

    def _ended(self, started: ev.CycleStarted, end: End) -> cmd.FinishCycle | cmd.ShutDownCycle:
        if end is End.SHUT_DOWN:
            return cmd.ShutDownCycle(restart=started.restart, cycle=started.cycle, fence=started.fence)
        result: cmd.Success | cmd.Failure
        if end in _ERRORS:
            kind, message = _ERRORS[end]
            result = cmd.Failure(error_kind=kind, message=message, jitter=self._random.random())
        else:
            result = cmd.Success(
                generation_before=f"gen-{started.fence - 1}", generation_after=f"gen-{started.fence}", output="ready"
            )
        return cmd.FinishCycle(restart=started.restart, cycle=started.cycle, fence=started.fence, result=result)

    def count_ended(self, before: WorkspaceState) -> None:
        """Give a fleet's place back if what came after ``before`` has ended the running cycle."""
        after = self.log.state(before.workspace)
        if before.cycle is None or (after.cycle is not None and after.cycle.id == before.cycle.id):
            return
        fleet = fleet_of(before)
        self._running[fleet] -= 1
        self._offer_place(fleet)

    def _offer_place(self, fleet: str) -> None:
        """Let the workspace that has queued longest for a full fleet try again."""
        queue = self._queues.get(fleet)
        if queue:
            self.after(self._random.uniform(0.001, 0.02), partial(self._claim, queue.popleft()))
