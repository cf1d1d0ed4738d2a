"""What a look folds is started in the same commit, by slots of its process: oldest first, bounds exact, none lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.domain.events import CycleStarted, CycleSucceeded, RestartQueued
from orchestrator.domain.state import Registration
from orchestrator.errors import StorageUnavailable
from orchestrator.ports.executor import Order, Receipt
from orchestrator.ports.store import CoreStore
from orchestrator.ports.unit import Unit
from orchestrator.service.append import Author
from orchestrator.service.claim import Claimer
from orchestrator.service.drain import Drainer
from orchestrator.service.operate import Operator
from orchestrator.service.record import Write, record_writes
from orchestrator.service.tick import Looked, look
from tests.service.test_drain_together import AT_ONCE, bound
from tests.service.world import IDS, SIMULATED, Bell, Scripted, drainer, events, recorded
from tests.waiting import wait_until


@dataclass
class Looking:
    """Looks of a worker's process."""

    store: CoreStore
    worker: Drainer
    bell: Bell = field(default_factory=Bell)

    def look(self) -> Looked:
        return look(
            self.store,
            self.bell,
            IDS,
            free_slots=lambda: self.worker.slots.free,
            running_most=self.worker.running_most,
            own_slots=self.worker,
        )

    def wait(self, cycles: int) -> None:
        wait_until(lambda: len(events(self.store, CycleSucceeded)) == cycles, what=f"{cycles} cycles")
        wait_until(lambda: self.worker._busy == 0, what="every slot is given back")


def due(store: CoreStore, *workspaces: str, fleet: str = "default") -> None:
    for name in workspaces:
        registration = Registration(fleet=fleet, labels={}, executor="simulated", target={}, policy=AT_ONCE)
        Operator(store, IDS).register(name, registration, Author(actor="me"))
    record_writes(store, [Write(workspace=name, path="a") for name in workspaces], actor="me", ids=IDS, auto=SIMULATED)


def at_instants(store: CoreStore, kind: type[Any]) -> dict[str | None, Any]:
    return {event.workspace: event.recorded_at for event in recorded(store, kind)}


def test_what_is_folded_starts_in_the_same_commit_and_nobody_is_rung_for(shared_store: CoreStore) -> None:
    due(shared_store, "ws-0", "ws-1", "ws-2")
    looking = Looking(shared_store, drainer(shared_store, Scripted(), slots=4))
    assert looking.look().changed == 3
    looking.wait(3)
    assert looking.bell.rung == []
    assert at_instants(shared_store, CycleStarted) == at_instants(shared_store, RestartQueued)


def test_what_has_no_slot_is_rung_for_and_started_next_the_oldest_first(shared_store: CoreStore) -> None:
    names = [f"ws-{number}" for number in range(6)]
    due(shared_store, *names)
    executor = Scripted()
    looking = Looking(shared_store, drainer(shared_store, executor, slots=1))
    looking.look()
    assert looking.bell.rung
    looking.wait(6)
    assert [order.workspace for order in executor.orders] == names


def test_nothing_younger_starts_while_something_ready_waits(shared_store: CoreStore) -> None:
    due(shared_store, "old")
    look(shared_store, Bell(), IDS, free_slots=lambda: 1)
    due(shared_store, "young")
    looking = Looking(shared_store, drainer(shared_store, Scripted(), slots=4))
    assert looking.look().changed == 1
    assert events(shared_store, CycleStarted) == []
    assert looking.bell.rung == ["old", "young"]
    looking.worker.take_up(2)
    looking.wait(2)


def test_the_bound_of_a_fleet_holds_in_the_commit_of_the_fold(shared_store: CoreStore) -> None:
    bound(shared_store, "small", 2)
    due(shared_store, *(f"ws-{number}" for number in range(5)), fleet="small")
    worker = drainer(shared_store, Scripted(act=_until_told), slots=5)
    looking = Looking(shared_store, worker)
    assert looking.look().changed == 5
    assert len(events(shared_store, CycleStarted)) == 2
    worker.stop(grace_s=0)


def _until_told(order: Order) -> Receipt:
    order.stop.wait(20)
    return Receipt()


def test_another_workers_executor_is_left_to_it(shared_store: CoreStore) -> None:
    due(shared_store, "ws")
    looking = Looking(shared_store, drainer(shared_store, None, slots=4))
    assert looking.look().changed == 1
    assert events(shared_store, CycleStarted) == []
    assert looking.worker.slots.free == 4
    assert looking.bell.rung == ["ws"]


def test_a_worker_that_stops_starts_nothing_and_folds_all_the_same(shared_store: CoreStore) -> None:
    due(shared_store, "ws")
    looking = Looking(shared_store, drainer(shared_store, Scripted(), slots=4))
    looking.worker.stop(grace_s=0)
    assert looking.look().changed == 1
    assert events(shared_store, CycleStarted) == []


def test_a_commit_that_fails_gives_every_slot_back(shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(store: CoreStore, unit: Unit[Any]) -> Any:
        raise StorageUnavailable("away")

    due(shared_store, "ws-0", "ws-1")
    looking = Looking(shared_store, drainer(shared_store, Scripted(), slots=4))
    with monkeypatch.context() as patched:
        patched.setattr(type(shared_store), "commit", failing)
        with pytest.raises(StorageUnavailable):
            looking.look()
    assert looking.worker.slots.free == 4
    looking.look()
    looking.wait(2)


def test_what_cannot_be_started_is_folded_all_the_same(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(claimer: Claimer, tx: object, workspace: str, iteration: int) -> Any:
        if workspace == "ws-1":
            raise ArithmeticError("a duration of a million years")
        return start_held(claimer, tx, workspace, iteration)  # type: ignore[arg-type]

    start_held = Claimer.start_held
    monkeypatch.setattr(Claimer, "start_held", failing)
    due(shared_store, "ws-0", "ws-1", "ws-2")
    looking = Looking(shared_store, drainer(shared_store, Scripted(), slots=4))
    assert looking.look().changed == 3
    assert "tick.split" in capsys.readouterr().out
    assert sorted(looking.bell.rung) == ["ws-0", "ws-1", "ws-2"]
    assert looking.worker.slots.free == 4


def test_a_slot_that_gets_no_thread_is_free_again(shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*args: object, **kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    worker = drainer(shared_store, Scripted(), slots=2)
    monkeypatch.setattr("orchestrator.service.drain.threading.Thread", no_thread)
    worker.take_up(2)
    assert worker.slots.free == 2
