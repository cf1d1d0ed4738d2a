"""Making real history in a real store under a clock that the test moves: writes, ticks, cycles and their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import ErrorKind, Recorded, Trigger
from orchestrator.domain.policy import Policy, parse_policy
from orchestrator.domain.state import Registration, WorkspaceState
from orchestrator.ports.store import CoreStore, EventStore
from orchestrator.service.append import Author, carry_out
from orchestrator.service.change_policy import note_floor
from orchestrator.service.operate import Operator
from orchestrator.service.record import AcceptedWrite, AutoRegistration, Write, record_writes
from orchestrator.service.tick import look_at

START = datetime(2026, 11, 23, 14, 2, 1, tzinfo=UTC)


@dataclass
class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False
    at: datetime = START

    def now(self) -> datetime:
        return self.at


@dataclass
class CountedIds:
    """Ids that are the same in every run."""

    count: int = 0

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.count:04d}"


@dataclass
class History:
    """What happens, step by step."""

    store: CoreStore
    clock: TestClock
    ids: CountedIds = field(default_factory=CountedIds)
    author: str = "local:ann"

    def __post_init__(self) -> None:
        note_floor(self.store, self.ids, Policy())

    @property
    def operator(self) -> Operator:
        return Operator(self.store, self.ids)

    def register(
        self, workspace: str = "ws", *, fleet: str = "default", pool: str | None = None, **policy: Any
    ) -> None:
        registration = Registration(
            fleet=fleet,
            labels={"tier": "web"},
            executor="simulated",
            target={} if pool is None else {"pool": pool},
            policy=parse_policy(policy),
        )
        self.operator.register(workspace, registration, Author(actor=self.author))

    def at(self, seconds: float) -> None:
        """Move the clock to so many seconds after the start."""
        self.clock.at = START + timedelta(seconds=seconds)

    def write(self, *paths: str, workspace: str = "ws", actor: str | None = None) -> list[AcceptedWrite]:
        batch, _ = record_writes(
            self.store,
            [Write(workspace=workspace, path=path) for path in paths],
            actor=actor or self.author,
            ids=self.ids,
            auto=AutoRegistration(),
        )
        assert not batch.refused
        return [batch.accepted[index] for index in range(len(paths))]

    def request(self, reason: str, trigger: Trigger = Trigger.MANUAL, workspace: str = "ws") -> str:
        answer, _ = self.operator.request_restart(
            workspace, cmd.RequestRestart(trigger=trigger, reason=reason), Author(actor=self.author)
        )
        return answer.id

    def probe(self, detail: str, workspace: str = "ws") -> None:
        self.operator.report_probe(workspace, cmd.ReportProbe(healthy=False, detail=detail), Author(actor=self.author))

    def change(self, command: cmd.Hold | cmd.Release | cmd.Remove, workspace: str = "ws") -> None:
        self.operator.change(workspace, command, Author(actor=self.author))

    def cancel(self, restart: str, reason: str) -> None:
        with self.store.read() as reader:
            record = reader.restart(restart)
        assert record is not None
        self.operator.cancel(record, reason, Author(actor=self.author))

    def tick(self, workspace: str = "ws") -> None:
        look_at(self.store, self.ids, [workspace])

    def state(self, workspace: str = "ws") -> WorkspaceState:
        with self.store.read() as reader:
            stored = reader.workspace(workspace)
        assert stored is not None
        return stored.state

    def queued(self, workspace: str = "ws") -> str:
        """Tick, and return the id of the restart that is unsettled then."""
        self.tick(workspace)
        restart = self.state(workspace).restart
        assert restart is not None, "nothing was queued"
        return restart.id

    def start(self, workspace: str = "ws") -> str:
        """Start a cycle and return its id."""
        cycle = self.ids.new("cyc")
        with self.store.read() as reader:
            stored = reader.workspace(workspace)
        assert stored is not None
        with self.store.write([workspace]) as tx:
            files = tx.count_paths(
                workspace, stored.state.from_position, stored.state.last_position, stored.state.waits_since
            )
        self.carry_out(workspace, cmd.StartCycle(cycle_id=cycle, worker="host:1", iteration=1, files=files))
        assert self.state(workspace).last_cycle == cycle, "nothing could be started"
        return cycle

    def succeed(self, workspace: str = "ws") -> None:
        self._finish(workspace, cmd.Success())

    def fail(self, message: str, workspace: str = "ws", kind: ErrorKind = ErrorKind.TRANSIENT) -> None:
        self._finish(workspace, cmd.Failure(error_kind=kind, message=message, jitter=0.5))

    def _finish(self, workspace: str, result: cmd.Success | cmd.Failure) -> None:
        state = self.state(workspace)
        assert state.restart is not None
        assert state.restart.cycle is not None
        self.carry_out(
            workspace,
            cmd.FinishCycle(restart=state.restart.id, cycle=state.restart.cycle.id, fence=state.fence, result=result),
        )

    def carry_out(self, workspace: str, command: cmd.Command) -> Sequence[Recorded]:
        with self.store.write([workspace]) as tx:
            stored = tx.workspace(workspace)
            assert stored is not None
            _, recorded = carry_out(tx, stored.state, command, Author(), self.ids, tx.policies())
        return recorded


@dataclass
class AuditedHistory(History):
    """With a store that answers auditors too."""

    store: EventStore
