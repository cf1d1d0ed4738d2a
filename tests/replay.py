"""Promise S10: folding the log gives the rows, the restarts and the policies, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.domain.due import due
from orchestrator.domain.encoding import encode_state
from orchestrator.domain.events import PolicyChanged, Recorded
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.restart_record import RestartRecord, project, restart_of
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports import EventFilter, EventStore, Reader, RestartFilter, WorkspaceFilter
from orchestrator.service.append import policy_of

_ALL = 1_000_000


@dataclass
class Replayed:
    """What the log says, event by event."""

    states: dict[str, WorkspaceState] = field(default_factory=dict)
    restarts: dict[str, RestartRecord] = field(default_factory=dict)
    layers: dict[str, PolicyLayer] = field(default_factory=dict)

    def take(self, event: Recorded) -> None:
        """Fold one event in."""
        if isinstance(event.data, PolicyChanged):
            self.layers[event.data.scope] = PolicyLayer(
                scope=event.data.scope, policy=event.data.policy, version=event.data.policy_version
            )
        if event.workspace is None:
            return
        before = self.states.get(event.workspace, WorkspaceState(workspace=event.workspace))
        after = evolve(before, event, policy_of(before, Policies(layers=self.layers)))
        self.states[event.workspace] = after
        restart = restart_of(event.data)
        if restart is not None:
            fleet = after.registration.fleet if after.registration else ""
            record = project(self.restarts.get(restart), event, fleet=fleet)
            if record is not None:
                self.restarts[restart] = record


def replay(reader: Reader) -> Replayed:
    """Return what the whole log folds into."""
    replayed = Replayed()
    for event in reader.events(EventFilter(limit=_ALL)):
        replayed.take(event)
    return replayed


def check_replay(store: EventStore) -> None:
    """Fail unless the log folds into what is stored, and every row is due when its state says."""
    with store.read() as reader:
        replayed = replay(reader)
        stored = {row.state.workspace: row for row in reader.workspaces(WorkspaceFilter(removed=True, limit=_ALL))}
        restarts = {record.id: record for record in reader.restarts(RestartFilter(limit=_ALL))}
        policies = reader.policies()
    assert dict(policies.layers) == replayed.layers
    assert restarts == replayed.restarts
    assert {name: encode_state(row.state) for name, row in stored.items()} == {
        name: encode_state(state) for name, state in replayed.states.items()
    }
    expected = {name: due(state, policy_of(state, policies)) for name, state in replayed.states.items()}
    assert {name: row.due_at for name, row in stored.items()} == {
        name: found.at if found else None for name, found in expected.items()
    }
