"""A log that grows as the product's own would, in virtual time: ``decide`` makes the events, ``evolve`` the rows.

Where ``service.append`` has a transaction, this has a sink, so that a million events take a minute and little memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

from orchestrator.domain import events as ev
from orchestrator.domain.commands import Command
from orchestrator.domain.decide import decide
from orchestrator.domain.due import due
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import Action, Policies, Policy, PolicyLayer, PolicyPatch
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import RestartProjection, project, restart_of
from orchestrator.domain.snapshot import Snapshot, is_kept
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports.workspaces import Lease, StoredWorkspace
from orchestrator.service.append import Author
from orchestrator.storage.sql import rows, workspace_rows

START = datetime(2024, 1, 8, 6, 0, tzinfo=UTC)
"""Long past, so that no clock finds the log in its future."""
_EPOCH_MS = int(START.timestamp() * 1000)
_GAP_EVERY = 5_000
_REGISTERING = ev.WorkspaceRegistered | ev.WorkspaceChanged


class Sink(Protocol):
    """Takes rows as they come about."""

    def event(self, position: int, row: rows.Row) -> None:
        """Take the columns of an event."""
        ...

    def snapshot(self, row: rows.Row) -> None:
        """Take the columns of a snapshot."""
        ...


class VirtualIds:
    """Ids shaped like UUIDv7, from virtual time and a seed: the same in every run."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.now_ms = _EPOCH_MS
        self._count = 0

    def new(self, prefix: str) -> str:
        """Return a fresh id; ids sort by time."""
        self._count += 1
        low = 0x8 << 60 | self._random.getrandbits(60)
        return f"{prefix}_{self.now_ms:012x}7{self._count & 0xFFF:03x}{low:016x}"


class VirtualLog:
    """The log and what it folds into. ``count`` is the number of events, ``position`` the last one's."""

    def __init__(self, sink: Sink, seed: int) -> None:
        self._sink = sink
        self._random = Random(seed)
        self.ids = VirtualIds(Random(seed + 1))
        self.now = START
        self.count = self.position = 0
        self.states: dict[str, WorkspaceState] = {}
        self.leases: dict[str, Lease] = {}
        self.restarts: dict[str, RestartProjection] = {}
        self.layers: dict[str, PolicyLayer] = {}
        self._in_force: dict[str, Policy] = {}
        self._waiting: dict[str, dict[str, int]] = {}

    def at(self, now: datetime) -> None:
        """Go on to that instant."""
        self.now = now
        self.ids.now_ms = _EPOCH_MS + (now - START) // timedelta(milliseconds=1)

    def state(self, workspace: str) -> WorkspaceState:
        """Return what a workspace's events fold into so far."""
        return self.states.get(workspace) or WorkspaceState(workspace=workspace)

    def policy(self, workspace: str) -> Policy:
        """Return the numbers in force for a workspace."""
        found = self._in_force.get(workspace)
        if found is None:
            found = self._in_force[workspace] = policy_in_force(self.state(workspace), Policies(layers=self.layers))
        return found

    def waiting_files(self, workspace: str) -> int:
        """Count the distinct paths that wait for a restart."""
        return len(self._waiting.get(workspace, ()))

    def carry_out(self, workspace: str, command: Command, author: Author | None = None) -> Sequence[ev.EventData]:
        """Decide, append, and return what was decided."""
        decided = decide(self.state(workspace), command, self.policy(workspace), self.now)
        self.append(workspace, decided, author)
        return decided

    def append(self, workspace: str, decided: Iterable[ev.EventData], author: Author | None = None) -> str:
        """Append decisions or facts of one workspace as they are; return the last one's id."""
        by, last = author or Author(), ""
        for data in decided:
            state, policy = self.state(workspace), self.policy(workspace)
            event = self._recorded(workspace, None if data.FACT else state.version + 1, data, by)
            after = self.states[workspace] = evolve(state, event, policy)
            self._fold(after, event)
            last = event.id
        return last

    def change_policy(self, scope: str, patch: PolicyPatch, actor: str) -> None:
        """Replace a policy layer, as ``service.change_policy`` does."""
        version = 1 + max((layer.version for layer in self.layers.values()), default=0)
        changed = ev.PolicyChanged(scope=scope, policy=patch, policy_version=version)
        self._recorded(None, None, changed, Author(actor=actor))
        self.layers[scope] = PolicyLayer(scope=scope, policy=patch, version=version)
        self._in_force.clear()

    def clock_stepped_back(self, by_ms: int) -> None:
        """Record what the product records when the database's clock has stepped back."""
        self._recorded(None, None, ev.ClockRegressed(by_ms=by_ms), Author())

    def stored_workspaces(self) -> list[rows.Row]:
        """Return the columns of all workspaces."""
        stored = (self._stored(self.states[name]) for name in sorted(self.states))
        return [workspace_rows.workspace_row(one, is_old=False, lease_until=None) for one in stored]

    def stored_registrations(self) -> list[rows.Row]:
        """Return the columns of all registrations."""
        found = (workspace_rows.registration_row(self.states[name]) for name in sorted(self.states))
        return [row for row in found if row is not None]

    def stored_leases(self) -> list[rows.Row]:
        """Return the columns of the leases of all open cycles."""
        running = (state for _, state in sorted(self.states.items()) if state.cycle is not None)
        return [workspace_rows.lease_row(state, self.leases[state.workspace]) for state in running]

    def stored_restarts(self) -> list[rows.Row]:
        """Return the columns of all restarts."""
        return [rows.restart_row(record) for record in self.restarts.values()]

    def stored_policies(self) -> list[rows.Row]:
        """Return the columns of all policy layers."""
        return [rows.policy_row(layer) for layer in self.layers.values()]

    def _stored(self, state: WorkspaceState) -> StoredWorkspace:
        found = due(state, self.policy(state.workspace))
        return StoredWorkspace(state=state, due_at=found.at if found else None)

    def _recorded(self, workspace: str | None, version: int | None, data: ev.EventData, by: Author) -> ev.Recorded:
        new = ev.NewEvent(
            id=self.ids.new("evt"),
            workspace=workspace,
            version=version,
            data=data,
            actor=by.actor,
            source=by.source,
            source_id=by.source_id,
            occurred_at=by.occurred_at,
            correlation_id=getattr(data, "restart", None),
            traceparent=by.traceparent,
        )
        self.count += 1
        self.position += 1 if self._random.randrange(_GAP_EVERY) else 3  # a rolled-back append leaves a gap
        recorded = rows.recorded(rows.sourced(new), position=self.position, recorded_at=self.now)
        self._sink.event(self.position, rows.event_row(recorded))
        return recorded

    def _fold(self, after: WorkspaceState, event: ev.Recorded) -> None:
        """Keep what follows from an event besides the workspace's state."""
        data, name = event.data, after.workspace
        if isinstance(data, ev.FileWritten):
            if data.action is not Action.RECORD:
                self._waiting.setdefault(name, {})[data.path] = event.position
            return
        if isinstance(data, ev.CycleSucceeded | ev.WritesWaived):
            waiting = self._waiting.get(name, {})
            self._waiting[name] = {path: last for path, last in waiting.items() if last > after.settled_to}
        if isinstance(data, ev.CycleStarted):
            self.leases[name] = Lease(cycle=data.cycle, fence=data.fence, worker=data.worker, until=data.lease_until)
        if isinstance(data, _REGISTERING):
            self._in_force.pop(name, None)
        if is_kept(data):
            self._sink.snapshot(rows.snapshot_row(Snapshot(position=event.position, state=after)))
        restart = restart_of(data)
        if restart is not None:
            fleet = workspace_rows.fleet_of(after)
            record = project(self.restarts.get(restart), event, fleet=fleet)
            if record is not None:
                self.restarts[restart] = record
