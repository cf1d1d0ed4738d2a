"""Promise S10: folding the log gives the workspaces' rows, the restarts, the policies and snapshots, byte for byte.

Leases are the rows' own: their renewals are no events. Memory is one state a workspace and one record a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.audit.fate import policy_in_force
from orchestrator.domain.due import due
from orchestrator.domain.encoding import canonical_json, encode_state
from orchestrator.domain.events import PolicyChanged, Recorded
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.restart_record import RestartRecord, project, restart_of
from orchestrator.domain.snapshot import is_kept
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports import SNAPSHOTS_FROM, EventFilter, EventStore, Reader, RestartFilter, WorkspaceFilter

_PAGE = 2_000

Progress = Callable[[int, int], None]
"""Takes the position that is folded and the last one that will be."""


@dataclass
class Replayed:
    """What the log says, event by event."""

    events: int = 0
    states: dict[str, WorkspaceState] = field(default_factory=dict)
    restarts: dict[str, RestartRecord] = field(default_factory=dict)
    layers: dict[str, PolicyLayer] = field(default_factory=dict)
    snapshots: dict[int, WorkspaceState] = field(default_factory=dict)
    """By position; whoever has compared some takes them out."""

    def take(self, event: Recorded) -> None:
        """Fold one event in."""
        self.events += 1
        if isinstance(event.data, PolicyChanged):
            scope, policy, version = event.data.scope, event.data.policy, event.data.policy_version
            self.layers[scope] = PolicyLayer(scope=scope, policy=policy, version=version)
        if event.workspace is None:
            return
        before = self.states.get(event.workspace, WorkspaceState(workspace=event.workspace))
        after = evolve(before, event, policy_in_force(before, Policies(layers=self.layers)))
        self.states[event.workspace] = after
        if is_kept(event.data):
            self.snapshots[event.position] = after
        restart = restart_of(event.data)
        if restart is not None:
            fleet = after.registration.fleet if after.registration else ""
            record = project(self.restarts.get(restart), event, fleet=fleet)
            if record is not None:
                self.restarts[restart] = record

    def rows(self) -> dict[str, str]:
        """Return what a workspace's row must hold: its state, and when its window is due."""
        policies = Policies(layers=self.layers)
        found = {name: due(state, policy_in_force(state, policies)) for name, state in self.states.items()}
        return {
            name: canonical_json([encode_state(state), at.at if (at := found[name]) else None])
            for name, state in self.states.items()
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row that is not what the log says. None: there is no such row on that side."""

    table: str
    id: str
    stored: str | None
    replayed: str | None


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """How much was folded, and every difference."""

    events: int
    workspaces: int
    restarts: int
    policies: int
    differences: tuple[Difference, ...]


def replay(store: EventStore, progress: Progress = lambda position, last: None) -> ReplayReport:
    """Fold the whole log beside what is stored, in one snapshot, and compare byte for byte."""
    with store.read() as reader:
        replayed, snapshots = _fold(reader, progress)
        found = [
            *_differences("workspaces", _stored_rows(reader), replayed.rows()),
            *_differences("restarts", _stored_restarts(reader), _spelled(replayed.restarts)),
            *_differences("policies", _spelled(reader.policies().layers), _spelled(replayed.layers)),
            *snapshots,
        ]
    return ReplayReport(
        events=replayed.events,
        workspaces=len(replayed.states),
        restarts=len(replayed.restarts),
        policies=len(replayed.layers),
        differences=tuple(found),
    )


def _fold(reader: Reader, progress: Progress) -> tuple[Replayed, list[Difference]]:
    """Fold the log; compare the snapshots page by page, since there may be as many as restarts."""
    replayed, after, last = Replayed(), 0, reader.last_position()
    complete_from = reader.counters(SNAPSHOTS_FROM).position
    differences: list[Difference] = []
    while page := reader.events(EventFilter(after=after, limit=_PAGE)):
        for event in page:
            replayed.take(event)
        kept = reader.snapshots_between(after + 1, page[-1].position)
        stored = {_place(one.position, one.state): encode_state(one.state) for one in kept}
        wanted = {
            _place(position, state): encode_state(state)
            for position, state in replayed.snapshots.items()
            if position > complete_from or _place(position, state) in stored
        }
        differences += _differences("workspace_snapshots", stored, wanted)
        replayed.snapshots.clear()
        after = page[-1].position
        progress(after, last)
    return replayed, differences


def _place(position: int, state: WorkspaceState) -> str:
    return f"{state.workspace} at {position}"


def _stored_rows(reader: Reader) -> dict[str, str]:
    rows: dict[str, str] = {}
    after = ""
    while page := reader.workspaces(WorkspaceFilter(removed=True, after=after, limit=_PAGE)):
        rows |= {row.state.workspace: canonical_json([encode_state(row.state), row.due_at]) for row in page}
        after = page[-1].state.workspace
    return rows


def _stored_restarts(reader: Reader) -> dict[str, str]:
    records: dict[str, RestartRecord] = {}
    before: int | None = None
    while page := reader.restarts(RestartFilter(before=before, limit=_PAGE)):
        records |= {record.id: record for record in page}
        before = page[-1].queued_position
    return _spelled(records)


def _spelled(values: Mapping[str, RestartRecord] | Mapping[str, PolicyLayer]) -> dict[str, str]:
    return {name: canonical_json(value) for name, value in values.items()}


def _differences(table: str, stored: Mapping[str, str], replayed: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(stored.keys() | replayed.keys()):
        if stored.get(name) != replayed.get(name):
            yield Difference(table=table, id=name, stored=stored.get(name), replayed=replayed.get(name))
