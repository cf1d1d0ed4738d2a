"""All leases of a process are renewed by one statement, which no row that somebody else holds can stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import psycopg
import pytest

from bench.statements import change, plain_url, recorded
from orchestrator.domain.encoding import encode_old_state
from orchestrator.ports.store import EventStore
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.service.lease import HeldLease, LeaseBook
from orchestrator.storage.opening import open_store
from tests.storage.samples import cycle, leased, put, state, unsettled

LEASE_MS = 30_000


def running(store: EventStore, *names: str) -> dict[str, tuple[int, int]]:
    """Let a cycle of each run, its lease nearly over, and return what a worker would renew."""
    with store.read() as reader:
        soon = reader.clock() + timedelta(seconds=1)
    put(store, *(leased(state(name, fence=1, restart=unsettled(running=cycle())), soon) for name in names))
    return dict.fromkeys(names, (1, LEASE_MS))


def found(store: EventStore, name: str) -> StoredWorkspace:
    with store.read() as reader:
        stored = reader.workspace(name)
    assert stored is not None
    return stored


def left_s(store: EventStore, name: str) -> float:
    """Return for how long the workspace's lease lasts from now on."""
    lease = found(store, name).lease
    assert lease is not None
    with store.read() as reader:
        return (lease.until - reader.clock()).total_seconds()


def leased_in_its_row(url: str, store: EventStore, name: str) -> None:
    """Put a workspace into the shape in which the version of revision 0002 leases."""
    stored = found(store, name)
    assert stored.lease is not None
    until = stored.lease.until.isoformat(timespec="microseconds").replace("+00:00", "Z")
    text = encode_old_state(stored.state).replace("'", "''").replace(":", "\\:")
    change(
        url,
        [
            f"UPDATE workspaces SET state = '{text}', folded_state = NULL, lease_until = '{until}' WHERE id = '{name}'",
            f"DELETE FROM leases WHERE workspace = '{name}'",
        ],
    )


@contextmanager
def holding(url: str, table: str, column: str, name: str) -> Iterator[psycopg.Connection]:
    """Hold a row, as a stopped process or a person's session does."""
    with psycopg.connect(plain_url(url)) as holder:
        holder.execute(f"SELECT 1 FROM {table} WHERE {column} = '{name}' FOR UPDATE")
        yield holder


@pytest.mark.parametrize("url", ["sqlite_url", "app_url"])
@pytest.mark.parametrize("leases", [1, 50])
def test_as_many_leases_as_there_are_cost_the_same(url: str, leases: int, request: pytest.FixtureRequest) -> None:
    with closing(open_store(request.getfixturevalue(url))) as store:
        held = running(store, *(f"ws-{number:02}" for number in range(leases)))
        with recorded() as sent:
            assert store.renew_leases(held).kept == held.keys()
        assert len(sent) == 2, "the instant, and all of them"


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_leases_beside_and_in_rows_at_once(url: str, request: pytest.FixtureRequest) -> None:
    database = request.getfixturevalue(url)
    with closing(open_store(database)) as store:
        held = running(store, "beside", "in-row", "another")
        leased_in_its_row(database, store, "in-row")
        renewed = store.renew_leases(held | {"another": (2, LEASE_MS), "unknown": (1, LEASE_MS)})
        assert (set(renewed.kept), set(renewed.held_up)) == ({"beside", "in-row"}, set())
        assert left_s(store, "beside") > 20
        assert left_s(store, "in-row") > 20
        assert left_s(store, "another") < 2


def test_a_row_that_another_holds_is_passed_over(app_url: str, postgres_url: str) -> None:
    with closing(open_store(app_url)) as store:
        held = running(store, "a", "b", "old", "c")
        leased_in_its_row(postgres_url, store, "old")
        with holding(postgres_url, "leases", "workspace", "b"), holding(postgres_url, "workspaces", "id", "old"):
            renewed = store.renew_leases(held | {"c": (2, LEASE_MS)})
            assert (set(renewed.kept), set(renewed.held_up)) == ({"a"}, {"b", "old"}), "c is another's by now"
            assert left_s(store, "a") > 20
        assert set(store.renew_leases(held).kept) == {"a", "b", "old", "c"}


def test_a_row_that_is_held_is_no_lost_lease(
    app_url: str, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_store(app_url)) as store:
        running(store, "a", "b")
        book = LeaseBook()
        for name in ("a", "b"):
            book.take(HeldLease(workspace=name, cycle="c", fence=1, lease_ms=3_600_000, stop=threading.Event()))
        with holding(postgres_url, "leases", "workspace", "b"):
            assert not book.renew(store)
            assert left_s(store, "a") > 3_000
            assert not any(lease.stop.is_set() for lease in book.held())
            assert "lease.held_up" in capsys.readouterr().out
        assert book.renew(store)
        assert left_s(store, "b") > 3_000


def test_the_mark_of_a_tick_waits_for_nobody(app_url: str, postgres_url: str) -> None:
    with closing(open_store(app_url + "?options=-c%20lock_timeout%3D0")) as store:
        store.ticked()
        with holding(postgres_url, "heartbeats", "name", "tick"):
            store.ticked()
