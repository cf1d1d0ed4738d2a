"""One thread renews every lease of a process, short ones too, and survives a database that goes and comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import pytest

from orchestrator.domain.events import CycleAbandoned, CycleSucceeded
from orchestrator.domain.policy import parse_policy
from orchestrator.domain.state import Registration
from orchestrator.ports.executor import Order, Receipt
from orchestrator.ports.store import CoreStore
from orchestrator.ports.workspaces import Renewed
from orchestrator.service.append import Author
from orchestrator.service.lease import HeldLease, LeaseBook
from orchestrator.service.operate import Operator
from orchestrator.service.tick import look
from orchestrator.storage.opening import open_store
from tests.memory_store.store import MemoryEventStore
from tests.service.away import away
from tests.service.world import IDS, Bell, Scripted, drainer, events, write
from tests.waiting import wait_until
from workers.lease_renewer import LeaseRenewer


def register(store: CoreStore, lease: str) -> None:
    policy = parse_policy({"quiet": 0, "lease": lease})
    registration = Registration(fleet="default", labels={}, executor="simulated", target={}, policy=policy)
    Operator(store, IDS).register("ws", registration, Author(actor="me"))


def lease_until(store: CoreStore) -> datetime:
    with store.read() as reader:
        stored = reader.workspace("ws")
    assert stored is not None
    assert stored.lease is not None
    return stored.lease.until


@contextmanager
def working(store: CoreStore, lease: str) -> Iterator[threading.Event]:
    """Run one cycle with a renewer beside it; the event lets its executor go."""
    register(store, lease)
    write(store, "ws", "a")
    look(store, Bell(), IDS, free_slots=lambda: 1)
    inside, leave = threading.Event(), threading.Event()

    def act(order: Order) -> Receipt:
        inside.set()
        assert leave.wait(20)
        return Receipt()

    worker = drainer(store, Scripted(act=act))
    renewer = LeaseRenewer(store, worker.leases)
    renewer.start()
    thread = threading.Thread(target=worker.drain)
    thread.start()
    try:
        assert inside.wait(10)
        yield leave
    finally:
        leave.set()
        thread.join(10)
        renewer.stop()
    assert not thread.is_alive()


@pytest.mark.parametrize("lease", ["150ms", "400ms"])
def test_an_executor_that_works_longer_than_the_lease(lease: str) -> None:
    store = MemoryEventStore()
    with working(store, lease):
        first = lease_until(store)
        lasted = 3 * int(lease.removesuffix("ms")) / 1000

        def looked_for_long() -> bool:
            assert look(store, Bell(), IDS, free_slots=lambda: 1).changed == 0, "rescued under a living worker"
            return (lease_until(store) - first).total_seconds() > lasted

        wait_until(looked_for_long, what="three leases long")
    assert len(events(store, CycleSucceeded)) == 1


def test_without_a_renewer_the_lease_passes() -> None:
    store = MemoryEventStore()
    register(store, "1ms")
    write(store, "ws", "a")
    look(store, Bell(), IDS, free_slots=lambda: 1)

    def act(order: Order) -> Receipt:
        if order.fence == 1:
            wait_until(lambda: look(store, Bell(), IDS, free_slots=lambda: 1).changed, what="the rescue")
        return Receipt()

    drainer(store, Scripted(act=act)).drain()
    assert len(events(store, CycleAbandoned)) == 1


def test_a_database_that_is_away_and_comes_back(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(postgres_url)
    said = []

    def not_renewed() -> bool:
        said.append(capsys.readouterr().out)
        return any("lease.not_renewed" in line for line in said)

    with working(store, "900ms"):
        with away(postgres_url):
            wait_until(not_renewed, what="a renewal that failed")
        back = lease_until(store)
        wait_until(lambda: lease_until(store) > back, what="renewed again")
    assert len(events(store, CycleSucceeded)) == 1
    store.close()


def test_a_defect_does_not_end_the_thread(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    class Broken(MemoryEventStore):
        def renew_leases(self, held: object) -> Renewed:
            calls.append(1)
            raise ZeroDivisionError

    book = LeaseBook()
    book.take(HeldLease(workspace="ws", cycle="c", fence=1, lease_ms=30, stop=threading.Event()))
    renewer = LeaseRenewer(Broken(), book)
    renewer.start()
    wait_until(lambda: len(calls) > 2, what="renewals that go on")
    renewer.stop()
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_what_is_held_up_is_tried_again_sooner_than_all_are_renewed() -> None:
    calls_s = [time.monotonic()]

    class HeldUp(MemoryEventStore):
        def renew_leases(self, held: Mapping[str, tuple[int, int]]) -> Renewed:
            calls_s.append(time.monotonic())
            return Renewed(held_up=held.keys())

    book = LeaseBook()
    lease = HeldLease(workspace="ws", cycle="c", fence=1, lease_ms=6_000, stop=threading.Event())
    book.take(lease)
    renewer = LeaseRenewer(HeldUp(), book)
    renewer.start()
    wait_until(lambda: len(calls_s) > 3, what="more tries")
    renewer.stop()
    begun_s, first_s, second_s, third_s = calls_s[:4]
    assert (third_s - first_s) / 2 < (first_s - begun_s) / 2, (first_s, second_s, third_s)
    assert not lease.stop.is_set()


def test_a_stop_ends_a_long_wait() -> None:
    renewer = LeaseRenewer(MemoryEventStore(), LeaseBook())
    renewer.start()
    renewer.stop()
    assert "lease-renewer" not in [thread.name for thread in threading.enumerate()]
