"""Random days of several workspaces in the real service over a memory store, and their export."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.policy import PolicyPatch, parse_policy
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import Conflict, NotFound
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.service.tick import look_at
from tests.history import History, TestClock
from tests.log_lines import log_lines
from tests.memory_store.store import MemoryEventStore

WORKSPACES = ("a", "b", "c")
PATHS = ("a.py", "b.py", "x.log", "docs/a", "slow/a")
RULES = [
    {"match": "*.log", "action": "record"},
    {"match": "docs/**", "action": "reload", "quiet": "3s"},
    {"match": "slow/**", "quiet": "25s", "max_wait": "40s"},
]


class RandomDay:
    """Everything that people, ticks and workers do, at random, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = TestClock()
        self.store = MemoryEventStore(self.clock)
        self.history = History(self.store, self.clock)
        self.started: list[tuple[str, ev.CycleStarted]] = []
        self.seconds = 0.0
        for workspace in WORKSPACES:
            self._register(workspace)

    def play(self, steps: int) -> RandomDay:
        often: list[Callable[[str], object]] = [
            self._write,
            self._write,
            self._tick,
            self._tick,
            self._work,
            self._work,
        ]
        seldom = [
            *(self._request, self._probe, self._hold, self._release, self._cancel, self._remove, self._register),
            *(self._policy, self._report_late, self._batch),
        ]
        for _ in range(steps):
            self.seconds += self.random.choice([0, 0, 0.25, 1, 1, 3, 10, 30, 70])
            self.history.at(self.seconds)
            act = self.random.choice(often if self.random.random() < 0.75 else seldom)
            act(self.random.choice(WORKSPACES))
        return self

    def export(self) -> bytes:
        return log_lines(self.store)

    def _state(self, workspace: str) -> WorkspaceState:
        return self.history.state(workspace)

    def _write(self, workspace: str) -> None:
        if self._state(workspace).registered:
            self.history.write(*self.random.choices(PATHS, k=self.random.randint(1, 5)), workspace=workspace)

    def _batch(self, workspace: str) -> None:
        names = self.random.choices(WORKSPACES, k=6)
        writes = [Write(workspace=name, path=self.random.choice(PATHS)) for name in names]
        record_writes(self.store, writes, actor="batch", ids=self.history.ids, auto=AutoRegistration())

    def _tick(self, workspace: str) -> None:
        look_at(self.store, self.history.ids, WORKSPACES)

    def _work(self, workspace: str) -> None:
        state = self._state(workspace)
        if state.cycle is not None and state.restart is not None:
            self._finish(workspace, state.restart.id, state.cycle.id, state.fence)
            self._tick(workspace)
        elif state.registered:
            command = cmd.StartCycle(cycle_id=self.history.ids.new("cyc"), worker="w", iteration=1)
            for event in self.history.carry_out(workspace, command):
                if isinstance(event.data, ev.CycleStarted):
                    self.started.append((workspace, event.data))

    def _finish(self, workspace: str, restart: str, cycle: str, fence: int) -> None:
        end = self.random.random()
        if end < 0.1:
            self.history.carry_out(workspace, cmd.ShutDownCycle(restart=restart, cycle=cycle, fence=fence))
            return
        result: cmd.Success | cmd.Failure = cmd.Success()
        if end < 0.4:
            kind = self.random.choice(list(ev.ErrorKind))
            result = cmd.Failure(error_kind=kind, message="no", jitter=self.random.random())
        self.history.carry_out(workspace, cmd.FinishCycle(restart=restart, cycle=cycle, fence=fence, result=result))

    def _report_late(self, workspace: str) -> None:
        if self.started:
            whose, cycle = self.random.choice(self.started)
            self._finish(whose, cycle.restart, cycle.cycle, cycle.fence)

    def _request(self, workspace: str) -> None:
        if self._state(workspace).registered:
            self.history.request("please", self.random.choice([ev.Trigger.MANUAL, ev.Trigger.MUTATION]), workspace)

    def _probe(self, workspace: str) -> None:
        if self._state(workspace).registered:
            self.history.probe("no answer", workspace)

    def _hold(self, workspace: str) -> None:
        until = None if self.random.random() < 0.5 else self.clock.now() + self._span()
        self._change(workspace, cmd.Hold(reason="freeze", until=until))

    def _release(self, workspace: str) -> None:
        self._change(workspace, cmd.Release(reason="over"))

    def _remove(self, workspace: str) -> None:
        if self.random.random() < 0.4:
            self._change(workspace, cmd.Remove(reason="gone"))

    def _change(self, workspace: str, command: cmd.Hold | cmd.Release | cmd.Remove) -> None:
        if self._state(workspace).registered:
            self.history.change(command, workspace)

    def _cancel(self, workspace: str) -> None:
        restart = self._state(workspace).restart
        if restart is None:
            return
        try:
            self.history.operator.cancel(self._record(restart.id), "not now", Author(actor="ann"))
        except (Conflict, NotFound):
            assert restart.cycle is not None

    def _record(self, restart: str) -> RestartProjection:
        with self.store.read() as reader:
            record = reader.restart(restart)
        assert record is not None
        return record

    def _register(self, workspace: str) -> None:
        own = self._numbers() if self.random.random() < 0.3 else {}
        self.history.register(workspace, fleet=self.random.choice(["default", "blue"]), **own)

    def _policy(self, workspace: str) -> None:
        scope = self.random.choice(["default", "fleet:blue"])
        patch: PolicyPatch = parse_policy(self._numbers())
        change_policy(self.store, self.history.ids, scope=scope, patch=patch, actor="ann")

    def _numbers(self) -> dict[str, Any]:
        every: dict[str, Any] = {
            "quiet": f"{self.random.randint(0, 30)}s",
            "max_wait": f"{self.random.randint(1, 90)}s",
            "max_count": self.random.choice([1, 3, 8, 10_000]),
            "edge": self.random.choice(["leading", "trailing"]),
            "min_interval": f"{self.random.randint(0, 90)}s",
            "settle": f"{self.random.randint(0, 40)}s",
            "max_attempts": self.random.randint(1, 3),
            "retry_backoff": f"{self.random.randint(0, 10)}s",
            "give_up_backoff": f"{self.random.randint(1, 60)}s",
            "lease": f"{self.random.randint(2, 30)}s",
            "mode": self.random.choice(["live", "live", "live", "shadow"]),
            "rules": RULES,
        }
        return {name: value for name, value in every.items() if self.random.random() < 0.4}

    def _span(self) -> timedelta:
        return timedelta(seconds=self.random.randint(1, 60))
