"""What each request and each tick costs in statements, so that a costlier one is noticed.

BEGIN and COMMIT are not counted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from orchestrator.domain.commands import RequestRestart
from orchestrator.domain.events import Trigger
from orchestrator.domain.policy import PolicyPatch, fleet_scope
from orchestrator.domain.state import Registration
from orchestrator.ports.executor import Order, Receipt
from orchestrator.ports.store import EventStore, RestartFilter
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.drain import Drainer
from orchestrator.service.operate import Operator
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.service.tick import look
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.sent_statements import statements
from tests.service.test_shared_ends import ended
from tests.service.world import Scripted, drainer

IDS = TimeOrderedIds()


class Silent:
    """A doorbell that nobody hears."""

    def ring(self, workspace: str) -> None:
        """Do nothing."""


@dataclass
class Costed:
    """A store with one known workspace, and what writing a transaction costs it beyond its own statements."""

    store: EventStore
    is_postgres: bool

    def of(self, *, sqlite: int, postgres: int) -> int:
        """Return what something costs there: PostgreSQL has the lock of all appends, and writes all tables at once."""
        return postgres if self.is_postgres else sqlite

    def write(self, paths: int, workspaces: int = 1) -> None:
        """Record so many new paths in each of so many workspaces."""
        named = [f"ws-{number}" for number in range(workspaces)]
        writes = [
            Write(workspace=name, path=f"p{path}", source_id=IDS.new("w")) for name in named for path in range(paths)
        ]
        record_writes(self.store, writes, actor="me", ids=IDS, auto=AutoRegistration(executor="simulated"))

    def look(self) -> None:
        """Look once, as a tick does."""
        look(self.store, Silent(), IDS, free_slots=lambda: 4)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def costed(request: pytest.FixtureRequest) -> Iterator[Costed]:
    """A store of each database."""
    store = open_store(request.getfixturevalue(request.param))
    costed = Costed(store=store, is_postgres=request.param == "postgres_url")
    costed.write(1, workspaces=10)
    yield costed
    store.close()


def registered(store: EventStore, workspace: str, fleet: str) -> None:
    """Register a workspace and ask for a restart of it."""
    operator, author = Operator(store, IDS), Author(actor="me")
    registration = Registration(fleet=fleet, labels={}, executor="simulated", target={}, policy=PolicyPatch())
    operator.register(workspace, registration, author)
    operator.request_restart(workspace, RequestRestart(trigger=Trigger.MANUAL, reason="now"), author)


@contextmanager
def working(store: EventStore, cycles: int) -> Iterator[Drainer]:
    """Give a worker that runs so many cycles and has slots to spare; they end with the block."""
    inside, leave = threading.Semaphore(0), threading.Event()

    def act(order: Order) -> Receipt:
        inside.release()
        assert leave.wait(60)
        return Receipt()

    worker = drainer(store, Scripted(act=act), slots=cycles + 1)
    threads = [threading.Thread(target=worker.drain) for _ in range(cycles)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(cycles):
            assert inside.acquire(timeout=30)
        yield worker
    finally:
        leave.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize(("paths", "workspaces"), [(1, 1), (60, 1), (6, 10)])
def test_writes_cost_the_same_however_many_come_together(costed: Costed, paths: int, workspaces: int) -> None:
    with statements() as sent:
        costed.write(paths, workspaces)
    # what came before, lock the rows, the lock of all appends, the instant; insert the facts, write the rows
    assert len(sent) == costed.of(sqlite=5, postgres=5), sent


def test_an_idle_look(costed: Costed) -> None:
    costed.look()
    with statements() as sent:
        costed.look()
    # what is due, what may start, the next instant and the last mark; a new mark only every few seconds
    assert len(sent) == 1, sent


def test_the_mark_of_a_tick_is_one_statement(costed: Costed) -> None:
    costed.look()
    with statements() as sent:
        costed.store.ticked()
    assert len(sent) == 1, sent


def test_restarts_that_wait_for_their_full_fleet_cost_a_bell_and_a_look_one_statement(costed: Costed) -> None:
    fleets = [f"fleet-{number}" for number in range(12)]
    for fleet in fleets:
        change_policy(
            costed.store, IDS, scope=fleet_scope(fleet), patch=PolicyPatch(max_concurrent=1, quiet_ms=0), actor="me"
        )
        for number in range(2):
            registered(costed.store, f"{fleet}-{number}", fleet)
    costed.look()
    with working(costed.store, len(fleets)) as worker:
        costed.look()
        with statements() as sent:
            assert worker.drain() == 0
        assert len(sent) == 1, sent
        with statements() as sent:
            costed.look()
        assert len(sent) == 1, sent


@pytest.mark.parametrize("cycles", [2, 9])
def test_cycles_that_start_together_cost_what_one_does(costed: Costed, cycles: int) -> None:
    fleets = [f"fleet-{number}" for number in range(cycles)]
    for fleet in fleets:
        registered(costed.store, fleet, fleet)
    costed.look()
    worker = drainer(costed.store, Scripted(), slots=cycles)
    with statements() as sent:
        claims = worker._claims._claimer.claim_oldest(cycles)
    assert len(claims) == cycles
    # what is ready; lock the rows, read their restarts, the lock, the instant; events, rows, leases and restarts
    assert len(sent) == costed.of(sqlite=8, postgres=6), sent


@pytest.mark.parametrize("slots", [1, 16])
def test_ends_and_the_next_starts_of_all_slots_cost_what_one_does(costed: Costed, slots: int) -> None:
    for number in range(2 * slots):
        registered(costed.store, f"fleet-{number}", f"fleet-{number}")
    costed.look()
    claimer = drainer(costed.store, Scripted(), slots=slots)._claims._claimer
    ends = [ended(claim) for claim in claimer.claim_oldest(slots)]
    with statements() as sent:
        done = claimer.end_and_start(ends, slots, {})
    assert (len(ends), done.recorded, len(done.claims)) == (slots, [True] * slots, slots)
    # what is ready; lock the rows, their leases and restarts, the lock, the instant; then all that is written
    assert len(sent) == costed.of(sqlite=11, postgres=7), "\n".join(sent)


def test_a_cycle_of_one_slot_costs_one_commit(costed: Costed) -> None:
    def drained(cycles: int) -> list[str]:
        for number in range(cycles):
            registered(costed.store, f"of-{cycles}-{number}", "default")
        costed.look()
        with statements() as sent:
            assert drainer(costed.store, Scripted()).drain() == cycles
        return sent

    few, many = drained(2), drained(5)
    assert len(many) - len(few) == 3 * costed.of(sqlite=11, postgres=7), "\n".join(many)


def test_paths_of_all_that_a_look_folds_are_counted_in_one_statement(costed: Costed) -> None:
    change_policy(costed.store, IDS, scope="default", patch=PolicyPatch(quiet_ms=0, max_wait_ms=1), actor="me")
    costed.write(6, workspaces=10)
    with statements() as sent:
        costed.look()
    assert len([words for words in sent if "count(DISTINCT" in words]) == 1
    with costed.store.read() as reader:
        assert [record.files for record in reader.restarts(RestartFilter())] == 10 * [6]


def test_a_change_of_policy_costs_the_same_however_many_windows_are_open(costed: Costed) -> None:
    def change(quiet_ms: int) -> None:
        change_policy(costed.store, IDS, scope="default", patch=PolicyPatch(quiet_ms=quiet_ms), actor="me")

    change(1_000)
    with statements() as few:
        change(2_000)
    costed.write(1, workspaces=40)
    with statements() as many:
        change(3_000)
    assert len(few) == len(many), many
    # the instant and the policies; append, write the layer; then one page: what is left, its rows, the same again
    assert len(many) == costed.of(sqlite=12, postgres=13), many


def test_a_snapshot_is_one_statement_of_the_transaction_that_settles_a_restart(costed: Costed) -> None:
    operator, author = Operator(costed.store, IDS), Author(actor="me")
    operator.request_restart("ws-0", RequestRestart(trigger=Trigger.MANUAL, reason="now"), author)
    with statements() as sent:
        costed.look()
    assert not [words for words in sent if "workspace_snapshots" in words]
    with costed.store.read() as reader:
        [record] = reader.restarts(RestartFilter(workspace="ws-0"))
    with statements() as sent:
        operator.cancel(record, "not now", author)
    assert len([words for words in sent if "workspace_snapshots" in words]) == 1
    # lock the row, read the instant and the policies; append, write the row, read and write the restart, the snapshot
    assert len(sent) == costed.of(sqlite=7, postgres=5), sent
