"""Several slots and workers at once on a real database: bounds that hold, one cycle a workspace, nobody starved."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg
import pytest

from orchestrator.domain.events import CycleFailed, CycleStarted, CycleSucceeded
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.errors import UnknownOutcome
from orchestrator.ports.executor import Order, Receipt
from orchestrator.ports.store import CoreStore
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.drain import Drainer
from orchestrator.service.operate import Operator
from orchestrator.service.record import Write, record_writes
from orchestrator.service.tick import look
from tests.service.world import IDS, SIMULATED, Bell, Scripted, at_once, drainer, events
from tests.waiting import wait_until

AT_ONCE = PolicyPatch(quiet_ms=0, min_interval_ms=0)


@dataclass
class Counted:
    """Acts that count how many are at work at once, in all and in each fleet (a workspace is FLEET-NUMBER)."""

    now: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self, order: Order) -> Receipt:
        groups = ("all", order.workspace.partition("-")[0], order.workspace)
        with self.lock:
            for group in groups:
                self.now[group] += 1
                self.most[group] = max(self.most[group], self.now[group])
        order.stop.wait(0.02)
        with self.lock:
            for group in groups:
                self.now[group] -= 1
        return Receipt()


def queue(store: CoreStore, *workspaces: str) -> None:
    for name in workspaces:
        registration = Registration(
            fleet=name.partition("-")[0], labels={}, executor="simulated", target={}, policy=AT_ONCE
        )
        Operator(store, IDS).register(name, registration, Author(actor="me"))
    writes = [Write(workspace=name, path="a") for name in workspaces]
    record_writes(store, writes, actor="me", ids=IDS, auto=SIMULATED)
    assert look(store, Bell(), IDS, free_slots=lambda: 1).changed == len(workspaces)


def bound(store: CoreStore, fleet: str, most: int) -> None:
    patch = PolicyPatch(max_concurrent=most)
    change_policy(store, IDS, scope=f"fleet:{fleet}", patch=patch, actor="me")


def drain_until_done(store: CoreStore, workers: list[Drainer], count: int) -> None:
    """Ring every slot again and again, as ticks would, until all have succeeded."""
    for _ in range(200):
        at_once([worker.drain for worker in workers for _ in range(4)])
        if len(events(store, CycleSucceeded)) >= count:
            return
    raise AssertionError(f"{len(events(store, CycleSucceeded))} of {count} succeeded")


def test_the_bounds_hold_under_eight_threads(shared_store: CoreStore) -> None:
    bound(shared_store, "one", 1)
    bound(shared_store, "two", 2)
    names = [f"{fleet}-{number}" for fleet in ("one", "two", "free") for number in range(5)]
    queue(shared_store, *names)
    counted = Counted()
    executor = Scripted(act=counted.act)
    workers = [drainer(shared_store, executor, slots=4, running_most=4, worker=f"host:{n}") for n in range(2)]
    drain_until_done(shared_store, workers, len(names))
    assert counted.most["one"] == 1
    assert counted.most["two"] <= 2
    assert counted.most["all"] <= 4
    assert {counted.most[name] for name in names} == {1}
    assert len(events(shared_store, CycleStarted)) == len(names)


def test_a_full_fleet_in_front_starves_nobody(shared_store: CoreStore) -> None:
    bound(shared_store, "full", 1)
    queue(shared_store, *(f"full-{number}" for number in range(4)))
    queue(shared_store, "other-1")
    inside, leave = threading.Event(), threading.Event()

    def act(order: Order) -> Receipt:
        if order.workspace.startswith("full"):
            inside.set()
            assert leave.wait(10)
        return Receipt()

    worker = drainer(shared_store, Scripted(act=act), slots=2)
    thread = threading.Thread(target=worker.drain)
    thread.start()
    assert inside.wait(10)
    assert worker.drain() == 1
    assert [event.restart for event in events(shared_store, CycleSucceeded, "other-1")]
    leave.set()
    thread.join(10)


def test_eight_slots_for_one_workspace_start_one_cycle(shared_store: CoreStore) -> None:
    queue(shared_store, "ws")
    workers = [drainer(shared_store, Scripted(), slots=8) for _ in range(2)]
    started = at_once([worker.drain for worker in workers for _ in range(4)])
    assert sum(started) == 1


def test_a_row_that_a_writer_holds_is_passed_over_at_first(postgres_store: CoreStore, postgres_url: str) -> None:
    queue(postgres_store, "busy", "free")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM workspaces WHERE id = 'busy' FOR UPDATE")

        def act(order: Order) -> Receipt:
            other.rollback()
            return Receipt()

        executor = Scripted(act=act)
        assert drainer(postgres_store, executor).drain() == 2
    assert [order.workspace for order in executor.orders] == ["free", "busy"]


def test_a_row_that_a_writer_holds_is_waited_for_where_nothing_else_is_left(
    postgres_store: CoreStore, postgres_url: str
) -> None:
    queue(postgres_store, "busy")
    plain_url = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain_url) as holder, psycopg.connect(plain_url, autocommit=True) as watcher:
        holder.execute("SELECT 1 FROM workspaces WHERE id = 'busy' FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(drainer(postgres_store, Scripted()).drain)
            wait_until(lambda: _waits_for_a_row(watcher), what="a claim that waits for the row")
            holder.rollback()
            assert drained.result(10) == 1


def _waits_for_a_row(watcher: psycopg.Connection) -> bool:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return watcher.execute(waiting).fetchone() is not None


@pytest.mark.parametrize("said", ["NUL \x00", "half a pair \ud800"])
def test_odd_words_of_a_plug_in_are_stored(postgres_store: CoreStore, said: str) -> None:
    def act(order: Order) -> Receipt:
        if order.fence == 1:
            raise UnknownOutcome(said)
        return Receipt(output=said)

    queue(postgres_store, "ws")
    worker = drainer(postgres_store, Scripted(act=act, generation=lambda: said))
    assert sum(worker.drain() for _ in range(2)) == 2
    assert len(events(postgres_store, CycleFailed)) == len(events(postgres_store, CycleSucceeded)) == 1
