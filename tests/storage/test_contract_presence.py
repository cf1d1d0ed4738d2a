"""What every store promises of who is there: workers as they note themselves, and what the log says is away."""

from __future__ import annotations

from msgspec import structs

from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Phase, WorkspaceState
from orchestrator.ports.store import CoreStore
from orchestrator.ports.workspaces import WorkspaceFilter
from tests.storage.conftest import SetClock
from tests.storage.samples import NOON, at, put, registration, state, unsettled

BLUE = Serving(executors=frozenset({"command", "simulated"}), pools=frozenset({"blue"}))


def queued(workspace: str, pool: str | None, ready_s: float) -> WorkspaceState:
    target = {} if pool is None else {"pool": pool}
    said = structs.replace(registration(), target=target)
    return structs.replace(state(workspace, restart=unsettled(at(ready_s))), registration=said)


def test_a_worker_is_seen_when_it_last_noted_itself(clocked_store: CoreStore, set_clock: SetClock) -> None:
    clocked_store.note_worker("w", "host-1", BLUE, 4)
    set_clock.step(5)
    clocked_store.note_worker("w", "host-1", BLUE, 4)
    with clocked_store.read() as reader:
        [worker] = reader.workers()
    assert (worker.name, worker.host, worker.serving, worker.slots) == ("w", "host-1", BLUE, 4)
    assert worker.seen_at == at(5)


def test_what_restarts_wait_for_since_the_longest_is_ready(clocked_store: CoreStore) -> None:
    put(clocked_store, queued("a", "blue", -3), queued("b", "blue", -5), queued("c", None, -1), queued("d", "red", 1))
    with clocked_store.read() as reader:
        assert reader.waiting_for() == {("simulated", "blue"): at(-5), ("simulated", "default"): at(-1)}


def test_a_workspace_whose_restart_nobody_serves_is_unclaimable(store: CoreStore) -> None:
    put(store, queued("a", "blue", -3), queued("b", None, -3), state("idle"))
    with store.write() as tx:
        tx.save_away([(("simulated", "blue"), NOON, 7)], [])
        assert tx.away() == {("simulated", "blue"): NOON}
    with store.read() as reader:
        found = {row.state.workspace: row.phase for row in reader.workspaces(WorkspaceFilter())}
        assert found == {"a": Phase.UNCLAIMABLE, "b": Phase.RETRYING, "idle": Phase.IDLE}
        assert (reader.away(), reader.unclaimable()) == ({("simulated", "blue"): NOON}, 1)
        assert [row.state.workspace for row in reader.workspaces(WorkspaceFilter(phase=Phase.RETRYING))] == ["b"]
        [row] = reader.workspaces(WorkspaceFilter(phase=Phase.UNCLAIMABLE))
        assert (row.state.workspace, row.unserved_since) == ("a", NOON)
    with store.write() as tx:
        tx.save_away([], [("simulated", "blue")])
    with store.read() as reader:
        assert (reader.away(), reader.unclaimable()) == ({}, 0)
