"""Given what happened, when something is asked, then these events: one workspace in virtual time.

A scenario does around the core what the service does: decide, record, evolve, project. Seconds count
from ``START``. Every step returns the scenario, so that a test reads as a timeline::

    scenario(quiet="15s").at(0).write("a.py").at(15).tick().then(that(ev.RestartQueued, cause=ev.Cause.QUIET))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from msgspec.structs import replace

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide
from orchestrator.domain.due import due
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import Action, Policy, PolicyPatch, parse_policy, said_by
from orchestrator.domain.restart_projection import RestartProjection, project, restart_of
from orchestrator.domain.state import Phase, Registration, WorkspaceState

DataT = TypeVar("DataT", bound=ev.EventData)
START = datetime(2026, 11, 23, 12, tzinfo=UTC)
REGISTRATION = Registration(fleet="default", labels={}, executor="simulated", target={}, policy=PolicyPatch())


def instant(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def seconds(at: datetime) -> float:
    return (at - START) / timedelta(seconds=1)


def policy(**given: Any) -> Policy:
    """The default policy with what a person would write: ``quiet="2s"``, ``edge="leading"``."""
    return Policy(**said_by(parse_policy(given)))


@dataclass(frozen=True)
class Expected:
    """An event of this type whose named fields have these values; an instant may be given in seconds."""

    kind: type[ev.EventData]
    fields: Mapping[str, object]


def that(kind: type[ev.EventData], /, **fields: object) -> Expected:
    return Expected(kind, fields)


def scenario(*, registered: bool = True, **given: Any) -> Scenario:
    """A workspace, registered at second 0 unless told otherwise, under the policy that is given."""
    begun = Scenario(policy(**given))
    return begun.registered() if registered else begun


class Scenario:
    """One workspace's log, its state, its restarts' read models, and a clock that only tests move."""

    def __init__(self, in_force: Policy, *, position_step: int = 1) -> None:
        self.policy = in_force
        self.now = START
        self.state = WorkspaceState(workspace="ws-1")
        self.lease_until: datetime | None = None
        """Of the open cycle: no part of the state, as its renewals are no events."""
        self.log: list[ev.Recorded] = []
        self.policies: list[Policy] = []
        """The policy in force at each event of the log."""
        self.restarts: dict[str, RestartProjection] = {}
        self.led_to: list[ev.EventData] = []
        self.ticks = 0
        self._position_step = position_step

    # --- given, when

    def at(self, at_seconds: float) -> Scenario:
        assert instant(at_seconds) >= self.now, "virtual time never runs backwards"
        self.now = instant(at_seconds)
        return self

    def under(self, **given: Any) -> Scenario:
        """From now on another policy is in force."""
        self.policy = policy(**given)
        return self

    def registered(self, **changed: Any) -> Scenario:
        return self.ask(cmd.Register(registration=replace(REGISTRATION, **changed)))

    def write(self, *paths: str) -> Scenario:
        """Record one write a path, as the first rule that matches says."""
        return self.record([self._written(path) for path in paths])

    def manual(self) -> Scenario:
        return self.ask(cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="please"))

    def mutation(self) -> Scenario:
        return self.ask(cmd.RequestRestart(trigger=ev.Trigger.MUTATION, reason="a secret changed"))

    def probe(self, *, healthy: bool = False) -> Scenario:
        return self.ask(cmd.ReportProbe(healthy=healthy, detail="no answer"))

    def hold(self, *, until: float | None = None) -> Scenario:
        return self.ask(cmd.Hold(reason="maintenance", until=None if until is None else instant(until)))

    def release(self) -> Scenario:
        return self.ask(cmd.Release(reason="done"))

    def remove(self) -> Scenario:
        return self.ask(cmd.Remove(reason="gone"))

    def cancel(self, restart: str | None = None) -> Scenario:
        """Cancel a restart: the newest, unless one is named."""
        return self.ask(cmd.Cancel(restart=restart or f"rst_{len(self.restarts)}", reason="not now"))

    def tick(self) -> Scenario:
        self.ticks += 1
        found = due(self.state, self.policy)
        folds = self.state.hold is not None or (found is not None and found.at <= self.now)
        files, lease_until = self._files() if folds else 0, self.lease_until if self.state.cycle else None
        return self.ask(cmd.Tick(restart_id=f"rst_{len(self.restarts) + 1}", files=files, lease_until=lease_until))

    def start(self, *, worker: str = "worker-1", iteration: int = 1, capacity: cmd.Capacity | None = None) -> Scenario:
        return self.ask(
            cmd.StartCycle(
                cycle_id=f"cyc_{self.state.fence + 1}",
                worker=worker,
                iteration=iteration,
                files=self._files(),
                capacity=capacity or cmd.UNBOUNDED,
            )
        )

    def renew(self) -> Scenario:
        """The worker of the open cycle renews its lease, which is no event."""
        assert self.state.cycle is not None
        self.lease_until = self.now + timedelta(milliseconds=self.policy.lease_ms)
        return self

    def succeed(self, of: ev.CycleStarted | None = None) -> Scenario:
        """A worker reports success of the cycle started last, or of an earlier one."""
        return self._finish(of or self.started, cmd.Success(generation_before="g1", generation_after="g2"))

    def fail(
        self,
        kind: ev.ErrorKind = ev.ErrorKind.TRANSIENT,
        *,
        jitter: float = 0.5,
        of: ev.CycleStarted | None = None,
    ) -> Scenario:
        return self._finish(of or self.started, cmd.Failure(error_kind=kind, message="no such host", jitter=jitter))

    def shut_down(self, of: ev.CycleStarted | None = None) -> Scenario:
        cycle = of or self.started
        return self.ask(cmd.ShutDownCycle(restart=cycle.restart, cycle=cycle.cycle, fence=cycle.fence))

    def bury(self, of: ev.CycleStarted | None = None) -> Scenario:
        """Say that the worker of the cycle has died."""
        cycle = of or self.started
        return self.ask(cmd.AbandonDead(cycle=cycle.cycle, fence=cycle.fence))

    def ask(self, command: cmd.Command) -> Scenario:
        """Decide a command and record what it leads to."""
        return self.record(decide(self.state, command, self.policy, self.now))

    def record(self, events: list[ev.EventData]) -> Scenario:
        """Append, evolve, project: one transaction, one instant."""
        for data in events:
            event = self._enveloped(data)
            self.log.append(event)
            self.policies.append(self.policy)
            self.state = evolve(self.state, event, self.policy)
            if isinstance(data, ev.CycleStarted):
                self.lease_until = data.lease_until
            restart = restart_of(data)
            if restart is not None:
                after = project(self.restarts.get(restart), event, fleet="default")
                assert after is not None, f"{event.type} of a restart that was never queued"
                self.restarts[restart] = after
        self.led_to = events
        return self

    # --- then

    def then(self, *expected: Expected | type[ev.EventData]) -> Scenario:
        """The last step led to exactly these events, in this order."""
        wanted = [item if isinstance(item, Expected) else Expected(item, {}) for item in expected]
        assert [type(data).__name__ for data in self.led_to] == [item.kind.__name__ for item in wanted]
        for data, item in zip(self.led_to, wanted, strict=True):
            assert {name: _readable(getattr(data, name)) for name in item.fields} == {
                name: _readable(value) for name, value in item.fields.items()
            }
        return self

    def then_nothing(self) -> Scenario:
        return self.then()

    def then_due(self, at_seconds: float, cause: ev.Cause) -> Scenario:
        found = due(self.state, self.policy)
        assert found is not None
        assert (seconds(found.at), found.cause) == (at_seconds, cause)
        return self

    def then_not_due(self) -> Scenario:
        assert due(self.state, self.policy) is None
        return self

    def then_pending(self, *, writes: int = 0, requests: int = 0) -> Scenario:
        assert (self.state.pending_writes, self.state.pending_requests) == (writes, requests)
        return self

    def then_ready(self, at_seconds: float) -> Scenario:
        """A worker may start a cycle from that second on."""
        assert self.state.ready_at is not None
        assert seconds(self.state.ready_at) == at_seconds
        return self

    def then_phase(self, phase: Phase) -> Scenario:
        assert self.state.phase is phase
        return self

    @property
    def started(self) -> ev.CycleStarted:
        """The cycle that was started last."""
        return self.of_type(ev.CycleStarted)[-1]

    def of_type(self, kind: type[DataT]) -> list[DataT]:
        return [event.data for event in self.log if isinstance(event.data, kind)]

    # ---

    def _written(self, path: str) -> ev.FileWritten:
        rule = self.policy.rule_for(path)
        return ev.FileWritten(
            path=path,
            op=ev.Operation.MODIFIED,
            action=rule.action if rule else Action.RESTART,
            rule=" ".join(rule.match) if rule else None,
            quiet_ms=rule.quiet_ms if rule else None,
            max_wait_ms=rule.max_wait_ms if rule else None,
        )

    def _finish(self, cycle: ev.CycleStarted, result: cmd.Success | cmd.Failure) -> Scenario:
        return self.ask(cmd.FinishCycle(restart=cycle.restart, cycle=cycle.cycle, fence=cycle.fence, result=result))

    def _enveloped(self, data: ev.EventData) -> ev.Recorded:
        return ev.Recorded(
            id=f"evt_{len(self.log) + 1}",
            workspace=self.state.workspace,
            version=None if data.FACT else self.state.version + 1,
            data=data,
            actor="test",
            position=(len(self.log) + 1) * self._position_step,
            recorded_at=self.now,
            schema=data.SCHEMA,
        )

    def _files(self) -> int:
        """Count the distinct paths that wait, as the store does."""
        return len(
            {
                event.data.path
                for event in self.log
                if isinstance(event.data, ev.FileWritten)
                and event.data.action is not Action.RECORD
                and event.position >= self.state.from_position
            }
        )


def _readable(value: object) -> object:
    return seconds(value) if isinstance(value, datetime) else value
