"""The end of a slot's cycle and its next start in one commit: what comes of each when a part of it fails."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import StorageUnavailable
from orchestrator.ports.executor import Order, Receipt
from orchestrator.ports.store import CoreStore
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import AnswerT, Unit
from orchestrator.service import append, cycle_end, shared_claims
from orchestrator.service import claim as claim_module
from orchestrator.service.claim import NO_ITERATIONS, Claim, Claimer, EndedAndStarted
from orchestrator.service.cycle_end import CycleEnd
from orchestrator.service.drain import Drainer
from orchestrator.service.lease import HeldLease
from orchestrator.service.shared_claims import HandedOver, SharedClaims
from tests.history import History
from tests.service.test_drain import queue as queue_in
from tests.service.test_drain_together import bound, queue
from tests.service.world import Scripted, drainer, events
from tests.waiting import wait_until


def ended(claim: Claim) -> CycleEnd:
    """Return the end, in success, of a cycle that was claimed."""
    lease = HeldLease(
        workspace=claim.state.workspace,
        cycle=claim.started.cycle,
        fence=claim.started.fence,
        lease_ms=30_000,
        stop=threading.Event(),
    )
    return CycleEnd(workspace=claim.state.workspace, started=claim.started, result=cmd.Success(), lease=lease)


def claimer_of(worker: Drainer) -> Claimer:
    claimer = worker._claims._claimer
    assert isinstance(claimer, Claimer)
    return claimer


def succeeded(store: CoreStore) -> list[str]:
    return sorted(event.cycle for event in events(store, ev.CycleSucceeded))


@dataclass
class Noting:
    """A store that notes the names of the units that it commits, and fails those that the test names, once each.

    ``lost`` ones are committed, and their answer is lost.
    """

    inner: CoreStore
    names: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        self.names.append(unit.name)
        if unit.name in self.refused:
            self.refused.remove(unit.name)
            raise StorageUnavailable("away")
        answer = self.inner.commit(unit)
        if unit.name in self.lost:
            self.lost.remove(unit.name)
            raise StorageUnavailable("the connection was cut")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class Gated:
    """A claimer whose first search waits for leave, and may then find nothing.

    It notes how many ends each of its commits was given.
    """

    claimer: Claimer
    leave: threading.Event = field(default_factory=threading.Event)
    finds_first: bool = True
    searches: int = 0
    ends: list[int] = field(default_factory=list)

    def claim_oldest(self, most: int = 1, iterations: Mapping[str, int] = NO_ITERATIONS) -> list[Claim]:
        self.searches += 1
        if self.searches == 1:
            assert self.leave.wait(10)
            if not self.finds_first:
                return []
        return self.claimer.claim_oldest(most, iterations)

    def end_and_start(
        self, ends: Sequence[CycleEnd], most: int, iterations: Mapping[str, int], *, others_look: bool = False
    ) -> EndedAndStarted:
        self.ends.append(len(ends))
        return self.claimer.end_and_start(ends, most, iterations, others_look=others_look)


def hand_over_while_one_searches(
    pool: ThreadPoolExecutor, gate: Gated, shared: SharedClaims, claims: Sequence[Claim]
) -> tuple[Future[Claim | None], list[Future[HandedOver]]]:
    searching = pool.submit(shared.next)
    wait_until(lambda: gate.searches, what="one searches")
    handed = [pool.submit(shared.hand_over, ended(claim), 1) for claim in claims]
    return searching, handed


def test_ends_and_starts_of_all_slots_that_wait_share_a_commit(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_claims, "_END_WAITS_S", 10.0)
    queue(shared_store, *(f"ws-{number}" for number in range(9)))
    claimer = claimer_of(drainer(shared_store, Scripted(), slots=8))
    running = claimer.claim_oldest(4)
    gate, let_go = Gated(claimer), list[str]()
    shared = SharedClaims(gate, lambda end: let_go.append(end.started.cycle))
    with ThreadPoolExecutor(8) as pool:
        searching, handed = hand_over_while_one_searches(pool, gate, shared, running)
        wait_until(lambda: len(shared._asks) == 4, what="the ends wait")
        gate.leave.set()
        found = [one.result(10) for one in handed]
        assert searching.result(10) is not None
    assert gate.ends == [4]
    assert [one.is_recorded for one in found] == [True] * 4
    assert succeeded(shared_store) == sorted(let_go) == sorted(claim.started.cycle for claim in running)
    assert len({one.claim.started.cycle for one in found if one.claim is not None}) == 4
    assert len(events(shared_store, ev.CycleStarted)) == 9


def test_an_end_does_not_wait_for_a_search_that_takes_long(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_claims, "_END_WAITS_S", 0.01)
    queue(shared_store, "ws-0", "ws-1")
    claimer = claimer_of(drainer(shared_store, Scripted(), slots=2))
    gate = Gated(claimer)
    shared = SharedClaims(gate)
    with ThreadPoolExecutor(2) as pool:
        searching, [handed] = hand_over_while_one_searches(pool, gate, shared, claimer.claim_oldest(1))
        assert handed.result(10) == HandedOver(is_recorded=False, claim=None, failed=None)
        assert shared._asks == []
        gate.leave.set()
        assert searching.result(10) is not None
    assert gate.ends == []


def test_who_looks_for_work_beside_ends_is_served_in_their_commit(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look found nothing, so that ends alone would not look; who comes with them need not search."""
    monkeypatch.setattr(shared_claims, "_END_WAITS_S", 10.0)
    queue(shared_store, "ws-0")
    claimer = claimer_of(drainer(shared_store, Scripted(), slots=8))
    [running] = claimer.claim_oldest(8)
    queue(shared_store, "ws-1")
    gate = Gated(claimer, finds_first=False)
    shared = SharedClaims(gate)
    with ThreadPoolExecutor(8) as pool:
        searching, [handed] = hand_over_while_one_searches(pool, gate, shared, [running])
        looking = pool.submit(shared.next)
        wait_until(lambda: len(shared._asks) == 2, what="an end and one who looks wait together")
        gate.leave.set()
        found = looking.result(10)
        assert found is not None
        assert (searching.result(10), handed.result(10).claim) == (None, None)
    assert found.state.workspace == "ws-1"
    assert (gate.searches, gate.ends) == (1, [1])


def test_who_looks_for_work_and_finds_none_beside_ends_searches(shared_store: CoreStore) -> None:
    """A fleet that is full when what may start is read, and has room once the ends are committed."""
    bound(shared_store, "full", 1)
    queue(shared_store, "full-0", "full-1")
    claimer = claimer_of(drainer(shared_store, Scripted(), slots=2))
    [running] = claimer.claim_oldest(2)
    shared = SharedClaims(claimer)
    handed = shared.hand_over(ended(running), 1)
    assert (handed.is_recorded, handed.claim) == (True, None)
    found = shared.next("full-0", 1)
    assert found is not None
    assert found.state.workspace != running.state.workspace


@pytest.mark.parametrize("bounded", ["fleet", "all"])
def test_bounds_hold_for_what_starts_in_the_commit_of_ends(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch, bounded: str
) -> None:
    """The count is of the transaction as the ends before left it: each end makes room for one, and no more."""
    if bounded == "fleet":
        bound(shared_store, "full", 2)
    names = [f"full-{number}" for number in range(6)]
    queue(shared_store, *names)
    claimer = claimer_of(drainer(shared_store, Scripted(), slots=6, running_most=2 if bounded == "all" else None))
    running = claimer.claim_oldest(6)
    assert len(running) == 2
    waiting = [name for name in names if name not in {claim.state.workspace for claim in running}]
    monkeypatch.setattr(Claimer, "_ready", lambda claimer, search, wanted: waiting)
    monkeypatch.setattr(claimer, "_finds_enough", True)
    done = claimer.end_and_start([ended(running[0])], 6, {})
    assert (done.recorded, len(done.claims)) == ([True], 1)
    done = claimer.end_and_start([ended(running[1]), ended(done.claims[0])], 6, {})
    assert (done.recorded, len(done.claims)) == ([True, True], 2)


def test_an_end_whose_row_is_held_gets_no_claim_and_holds_up_no_other(
    postgres_store: CoreStore, postgres_url: str
) -> None:
    queue(postgres_store, *(f"ws-{number}" for number in range(4)))
    claimer = claimer_of(drainer(postgres_store, Scripted(), slots=2))
    held, free = claimer.claim_oldest(2)
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM workspaces WHERE id = %s FOR UPDATE", (held.state.workspace,))
        done = claimer.end_and_start([ended(held), ended(free)], 2, {})
        assert (done.recorded, len(done.claims)) == ([False, True], 1)
        assert succeeded(postgres_store) == [free.started.cycle]


def test_an_end_whose_row_was_held_is_recorded_by_its_slot(postgres_store: CoreStore, postgres_url: str) -> None:
    queue(postgres_store, "ws-0", "ws-1")
    noting = Noting(postgres_store)
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other, ThreadPoolExecutor(1) as pool:

        def act(order: Order) -> Receipt:
            if not other.info.transaction_status:
                other.execute("SELECT 1 FROM workspaces WHERE id = %s FOR UPDATE", (order.workspace,))
            return Receipt()

        drained = pool.submit(drainer(noting, Scripted(act=act)).drain)
        wait_until(lambda: "finish" in noting.names, what="the slot records the end itself")
        other.rollback()
        other.execute("SELECT 1")  # no act locks anything any more
        assert drained.result(10) == 2
    assert len(succeeded(postgres_store)) == 2
    assert noting.names[:3] == ["claim", "end_and_start", "finish"]


def test_a_failing_end_takes_no_other_along(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(tx: Transaction, state: WorkspaceState, *args: Any) -> Any:
        if state.workspace == "ws-1":
            raise ArithmeticError("a duration of a million years")
        return append.carry_out(tx, state, *args)

    monkeypatch.setattr(cycle_end, "carry_out", failing)
    names = [f"ws-{number}" for number in range(4)]
    queue(shared_store, *names)
    barrier = threading.Barrier(2)

    def act(order: Order) -> Receipt:
        barrier.wait(10)  # two and two end together
        return Receipt()

    worker = drainer(shared_store, Scripted(act=act), slots=2)
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(lambda _: worker.drain(), range(2))) == 4
    assert len(succeeded(shared_store)) == 3
    assert (worker.slots.free, worker.leases.held()) == (2, [])
    assert capsys.readouterr().out.count("a duration of a million years") >= 2


def test_a_start_that_raises_keeps_no_end_from_being_recorded(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_served(state: WorkspaceState, serving: object) -> bool:
        if state.workspace == "ws-1":
            raise ArithmeticError("a defect of this one")
        return True

    queue(shared_store, *(f"ws-{number}" for number in range(4)))
    monkeypatch.setattr(claim_module, "is_served", is_served)
    assert drainer(shared_store, Scripted()).drain() == 3
    assert len(succeeded(shared_store)) == len(events(shared_store, ev.CycleStarted)) == 3


@pytest.mark.parametrize("refused", [False, True])
def test_an_end_whose_commit_is_not_answered_is_recorded_once(history: History, refused: bool) -> None:
    queue_in(history, "a", "b")
    noting = Noting(history.store)
    (noting.refused if refused else noting.lost).add("end_and_start")
    executor = Scripted()
    worker = drainer(noting, executor)
    assert worker.drain() == (2 if refused else 1)
    assert events(history.store, ev.LateResultRejected) == []
    assert len(events(history.store, ev.CycleSucceeded)) == (2 if refused else 1)
    assert worker.leases.held() == []
    if refused:
        return
    assert len(events(history.store, ev.CycleStarted)) == 2  # b's start is committed, and nobody was told
    assert [order.workspace for order in executor.orders] == ["a"]
    history.clock.at += timedelta(minutes=1)
    history.tick("b")
    assert [event.reason for event in events(history.store, ev.CycleAbandoned)] == ["lease_expired"]
    assert worker.drain() == 1
    assert [order.workspace for order in executor.orders] == ["a", "b"]


def test_a_late_end_is_rejected_and_its_workspace_may_start_in_the_same_commit(history: History) -> None:
    queue_in(history, "ws")
    claimer = claimer_of(drainer(history.store, Scripted()))
    [running] = claimer.claim_oldest(1)
    history.clock.at += timedelta(minutes=1)
    history.tick("ws")
    done = claimer.end_and_start([ended(running)], 1, {"ws": 1})
    [late] = events(history.store, ev.LateResultRejected)
    assert (late.cycle, late.fence) == (running.started.cycle, 1)
    assert [(claim.started.fence, claim.started.attempt) for claim in done.claims] == [(2, 2)]
    assert events(history.store, ev.CycleSucceeded) == []


def test_a_cycle_that_ends_while_its_process_stops_starts_no_other(history: History) -> None:
    queue_in(history, "a", "b")
    stopping: list[Drainer] = []
    noting = Noting(history.store)

    def act(order: Order) -> Receipt:
        stopping[0].stop_claiming()
        return Receipt()

    stopping.append(drainer(noting, Scripted(act=act)))
    assert stopping[0].drain() == 1
    assert noting.names == ["claim", "finish"]
    assert len(events(history.store, ev.CycleSucceeded)) == 1
