"""Stopping a worker, losing its lease, losing the database: the end of a cycle is recorded, or left to the lease."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.errors import ExecutionCancelled
from orchestrator.ports.executor import Order, Receipt
from orchestrator.ports.store import CoreStore
from orchestrator.service import drain
from orchestrator.service.append import Author
from orchestrator.service.drain import Drainer
from orchestrator.service.lease import HeldLease, LeaseBook
from orchestrator.service.operate import Operator
from tests.history import History
from tests.service.away import away
from tests.service.test_drain import queue
from tests.service.test_drain_together import queue as queue_now
from tests.service.world import IDS, Scripted, drainer, events
from tests.waiting import wait_until


@dataclass
class Gate:
    """Acts that wait inside until the test lets them go, or they are told to stop."""

    inside: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)

    def act(self, order: Order) -> Receipt:
        if self.inside.is_set():
            return Receipt()  # only the first act waits
        self.inside.set()
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            if order.stop.wait(0.005):
                raise ExecutionCancelled("told to stop")
            if self.leave.is_set():
                return Receipt()
        raise AssertionError("nobody let it go")


@contextmanager
def draining(worker: Drainer) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.drain)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()
    assert worker.leases.held() == []


def test_a_cycle_that_ends_within_the_grace_is_a_success(history: History) -> None:
    queue(history, "ws", "next")
    gate = Gate()
    worker = drainer(history.store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        stopper = threading.Thread(target=worker.stop, kwargs={"grace_s": 10})
        stopper.start()
        gate.leave.set()
        stopper.join(10)
    assert len(events(history.store, ev.CycleSucceeded)) == 1
    assert len(events(history.store, ev.CycleStarted)) == 1  # nothing new is claimed
    assert worker.drain() == 0


def test_a_cycle_that_does_not_is_given_back(history: History) -> None:
    queue(history, "ws")
    gate = Gate()
    worker = drainer(history.store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        worker.stop(grace_s=0)
    assert [event.reason for event in events(history.store, ev.CycleAbandoned)] == ["shutdown"]
    restart = history.state().restart
    assert restart is not None
    assert restart.spent == 0
    history.clock.at = history.clock.at.replace(microsecond=1)
    assert drainer(history.store, Scripted()).drain() == 1


def test_a_removal_ends_a_cycle_of_this_process_before_anything_else_is_told(history: History) -> None:
    queue(history, "ws", "other")
    gate, stopped = Gate(), []
    worker = drainer(history.store, Scripted(act=gate.act))
    operator = Operator(
        history.store, IDS, on_removed=lambda workspace: stopped.append(not worker.leases.held()[0].stop.is_set())
    )
    operator.tell_first(worker.leases.stop)
    with draining(worker):
        assert gate.inside.wait(10)
        [running] = [lease.workspace for lease in worker.leases.held()]
        operator.change(running, cmd.Remove(reason="gone"), Author(actor="me"))
    assert stopped == [False]
    assert len(events(history.store, ev.LateResultRejected)) == 1


def test_a_stop_between_claim_and_act_does_nothing(history: History) -> None:
    queue(history, "ws")
    stopping: list[Drainer] = []

    class Stopping(Scripted):
        def inspect(self, order: Order) -> str | None:
            stopping[0].cancel()
            return None

    executor = Stopping()
    stopping.append(drainer(history.store, executor))
    assert stopping[0].drain() == 1
    assert executor.orders == []
    assert [event.reason for event in events(history.store, ev.CycleAbandoned)] == ["shutdown"]


def test_a_lost_lease_ends_the_work_and_its_result_changes_nothing(history: History) -> None:
    queue(history, "ws")
    gate = Gate()
    worker = drainer(history.store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        history.at(100)
        history.tick()
        worker.leases.renew(history.store)
    [late] = events(history.store, ev.LateResultRejected)
    assert (late.fence, late.result) == (1, "failed: the lease was lost at work")
    assert [event.reason for event in events(history.store, ev.CycleAbandoned)] == ["lease_expired"]


def test_a_removed_workspace_ends_the_work(history: History) -> None:
    queue(history, "ws")
    gate = Gate()
    worker = drainer(history.store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        history.change(cmd.Remove(reason="gone"))
        worker.leases.renew(history.store)
    assert len(events(history.store, ev.LateResultRejected)) == 1


def test_renewal_moves_the_lease(history: History) -> None:
    queue(history, "ws")
    gate = Gate()
    worker = drainer(history.store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        for second in range(20, 120, 20):
            history.at(second)
            worker.leases.renew(history.store)
            history.tick()
        gate.leave.set()
    assert len(events(history.store, ev.CycleSucceeded)) == 1
    assert events(history.store, ev.CycleAbandoned) == []


def test_a_hung_executor_loses_its_lease(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_HUNG_AFTER_S", -1000.0)
    queue(history, "ws")
    gate = Gate()
    worker = drainer(history.store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        worker.leases.renew(history.store)
        assert worker.leases.held() == []
    [failed] = events(history.store, ev.CycleFailed)
    assert failed.error_kind == "timeout"
    assert "long after cycle_timeout" in failed.message


def test_the_book_drops_only_what_it_was_given() -> None:
    book = LeaseBook()

    def lease(fence: int) -> HeldLease:
        return HeldLease(workspace="ws", cycle=f"c{fence}", fence=fence, lease_ms=900 * fence, stop=threading.Event())

    old, new = lease(1), lease(2)
    book.take(old)
    book.take(new)
    assert old.stop.is_set(), "its cycle may still be at work in another slot of this process"
    assert not new.stop.is_set()
    book.drop(old)
    assert book.held() == [new]
    assert book.renew_every_s() == pytest.approx(0.6)
    book.drop(new)
    assert book.renew_every_s() == math.inf


def test_a_database_that_is_away_at_the_end_of_a_cycle(postgres_store: CoreStore, postgres_url: str) -> None:
    queue_now(postgres_store, "ws")
    gate = Gate()
    worker = drainer(postgres_store, Scripted(act=gate.act))
    with draining(worker) as thread:
        assert gate.inside.wait(10)
        with away(postgres_url):
            gate.leave.set()
            wait_until(lambda: worker.leases.held() and thread.is_alive(), what="still trying")
            assert worker.slots.free == 0
    assert len(events(postgres_store, ev.CycleSucceeded)) == 1


def test_a_stop_while_the_database_is_away_leaves_the_rest_to_the_lease(
    postgres_store: CoreStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_RECORD_AT_STOP_S", 0.3)
    queue_now(postgres_store, "ws")
    gate = Gate()
    worker = drainer(postgres_store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        with away(postgres_url):
            worker.stop(grace_s=0)
            wait_until(lambda: worker.slots.free, what="the slot given up")
    assert events(postgres_store, ev.CycleSucceeded) == []
    assert events(postgres_store, ev.CycleAbandoned) == []


def test_a_database_that_comes_back_while_stopping(
    postgres_store: CoreStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_now(postgres_store, "ws")
    gate = Gate()
    worker = drainer(postgres_store, Scripted(act=gate.act))
    with draining(worker):
        assert gate.inside.wait(10)
        with away(postgres_url):
            stopper = threading.Thread(target=worker.stop, kwargs={"grace_s": 0})
            stopper.start()
            wait_until(lambda: "cycle.end_not_recorded" in capsys.readouterr().out, what="an end that is not recorded")
        stopper.join(10)
    assert [event.reason for event in events(postgres_store, ev.CycleAbandoned)] == ["shutdown"]


def test_a_database_that_is_away_starts_nothing(
    postgres_store: CoreStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_now(postgres_store, "ws")
    worker = drainer(postgres_store, Scripted())
    with away(postgres_url):
        assert worker.drain() == 0
    assert "drain.skipped" in capsys.readouterr().out
    assert worker.drain() == 1
