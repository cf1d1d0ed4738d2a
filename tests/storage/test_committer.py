"""The committer: what waits shares a commit, each unit is answered for itself, and nobody waits for what is not his."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from bench.statements import plain_url
from orchestrator.errors import Conflict, MigrationsPending, Overloaded, StorageUnavailable, TimedOut
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Answered, Refused, Unit
from orchestrator.storage.committer import Committer
from orchestrator.storage.event_store import SqlEventStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql.transaction import SqlTransaction
from tests.storage.samples import file_written, put, requested, state
from tests.waiting import wait_until


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def sharing(request: pytest.FixtureRequest) -> Iterator[SqlEventStore]:
    """A store of each database whose units share commits."""
    store = open_store(request.getfixturevalue(request.param), shares_commits=True)
    assert isinstance(store, SqlEventStore)
    with closing(store):
        yield store


def writing(path: str, workspace: str = "ws", *, hurried: bool = False) -> Unit[int]:
    """Return a unit that appends a write, and answers with its position."""

    def step(tx: Transaction) -> int:
        return tx.append([file_written(path, workspace)])[0].position

    return Unit(name="write", workspaces=(workspace,), step=step, hurried=hurried)


def submitted(store: EventStore, unit: Unit[Any]) -> Future[Any]:
    """Hand a unit over; return its answer to come."""
    future: Future[Any] = Future()

    def tell(outcome: Answered | Refused) -> None:
        if isinstance(outcome, Answered):
            future.set_result(outcome.answer)
        else:
            future.set_exception(outcome.error)

    store.submit(unit, tell)
    return future


class Stopper:
    """A unit in whose step the committer stands still until it is let go: what comes meanwhile shares the next."""

    def __init__(self, store: EventStore) -> None:
        self._goes, self._stands = threading.Event(), threading.Event()
        self.answer = submitted(store, Unit(name="stop", workspaces=(), step=self._stand))
        assert self._stands.wait(10)

    def _stand(self, tx: Transaction) -> None:
        self._stands.set()
        assert self._goes.wait(30)

    def let_go(self) -> None:
        """Let it go on."""
        self._goes.set()


def paths(store: EventStore) -> list[str | None]:
    """Return the paths of all writes, in the log's order."""
    with store.read() as reader:
        return [getattr(one.data, "path", None) for one in reader.events(EventFilter())]


def test_what_waits_shares_one_commit_in_the_order_in_which_it_came(sharing: SqlEventStore) -> None:
    stopper = Stopper(sharing)
    answers = [submitted(sharing, writing(f"p{number}", f"ws-{number % 3}")) for number in range(20)]
    stopper.let_go()
    positions = [answer.result(20) for answer in answers]
    assert positions == list(range(positions[0], positions[0] + 20))
    with sharing.read() as reader:
        assert len({one.recorded_at for one in reader.events(EventFilter())}) == 1, "one instant: one transaction"


def test_what_is_in_a_hurry_goes_first(sharing: SqlEventStore) -> None:
    stopper = Stopper(sharing)
    answers = [submitted(sharing, writing("slow")), submitted(sharing, writing("quick", hurried=True))]
    stopper.let_go()
    for answer in answers:
        answer.result(20)
    assert paths(sharing) == ["quick", "slow"]


def test_a_step_that_raises_fails_alone(sharing: SqlEventStore) -> None:
    def fail(tx: Transaction) -> None:
        tx.append([file_written("lost")])
        raise Conflict("mine alone")

    stopper = Stopper(sharing)
    before, failing, after = (
        submitted(sharing, unit)
        for unit in (writing("a"), Unit(name="fail", workspaces=("ws",), step=fail), writing("b"))
    )
    stopper.let_go()
    assert after.result(20) == before.result(20) + 1
    with pytest.raises(Conflict, match="mine alone"):
        failing.result(20)
    assert paths(sharing) == ["a", "b"]


def test_what_the_database_refuses_fails_alone(sharing: SqlEventStore) -> None:
    """The group is tried in halves: each good one of it is stored once."""

    def collide(tx: Transaction) -> None:
        tx.append([requested(version=1), requested(version=1)])

    stopper = Stopper(sharing)
    good = [submitted(sharing, writing(f"p{number}")) for number in range(7)]
    bad = submitted(sharing, Unit(name="collide", workspaces=("ws",), step=collide))
    good += [submitted(sharing, writing(f"p{number}")) for number in range(7, 12)]
    stopper.let_go()
    assert len({answer.result(20) for answer in good}) == 12
    with pytest.raises(Conflict):
        bad.result(20)
    assert sorted(path for path in paths(sharing) if path) == sorted(f"p{number}" for number in range(12))


@pytest.mark.parametrize(
    ("words", "error"),
    [("SELECT pg_sleep(10)", TimedOut), ("SELECT 1/0", exc.DataError), ("SELECT * FROM nowhere", MigrationsPending)],
)
def test_a_statement_that_fails_in_a_step_fails_its_unit_alone(
    postgres_url: str, words: str, error: type[Exception]
) -> None:
    """PostgreSQL then refuses the whole transaction, whatever the other steps do."""

    def ask(tx: Transaction) -> None:
        assert isinstance(tx, SqlTransaction)
        tx._sql.run(sa.text(words))

    url = f"{postgres_url}?options=-c%20statement_timeout=300ms"
    with closing(open_store(url, shares_commits=True)) as store:
        stopper = Stopper(store)
        good = [submitted(store, writing(f"p{number}")) for number in range(3)]
        bad = submitted(store, Unit(name="ask", workspaces=("ws",), step=ask))
        good.append(submitted(store, writing("p3")))
        stopper.let_go()
        assert len({answer.result(20) for answer in good}) == 4
        with pytest.raises(error):
            bad.result(20)
        assert sorted(path for path in paths(store) if path) == ["p0", "p1", "p2", "p3"]


def test_more_than_may_wait_are_told_to_come_again_and_nothing_is_dropped(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    assert isinstance(store, SqlEventStore)
    store.committing = Committer(store, waiting_most=5)
    with closing(store):
        stopper = Stopper(store)
        taken = [submitted(store, writing(f"p{number}")) for number in range(5)]
        with pytest.raises(Overloaded, match="try again"):
            submitted(store, writing("too many"))
        stopper.let_go()
        for answer in taken:
            answer.result(20)
        store.commit(writing("again"))
        assert paths(store) == [*(f"p{number}" for number in range(5)), "again"]


def test_close_commits_what_waits_and_takes_nothing_more(sharing: SqlEventStore) -> None:
    stopper = Stopper(sharing)
    answers = [submitted(sharing, writing(f"p{number}")) for number in range(5)]
    with ThreadPoolExecutor(1) as pool:
        closing_it = pool.submit(sharing.committing.close)
        stopper.let_go()
        closing_it.result(20)
    assert all(answer.done() for answer in answers)
    with pytest.raises(StorageUnavailable, match="stopping"):
        sharing.commit(writing("late"))
    assert paths(sharing) == [f"p{number}" for number in range(5)]


def test_a_row_that_another_process_holds_holds_back_only_its_own_units(postgres_url: str) -> None:
    with closing(open_store(postgres_url, shares_commits=True)) as store:
        put(store, state("held"))
        with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
            other.execute("SELECT 1 FROM workspaces WHERE id = 'held' FOR UPDATE")
            waiting = [submitted(store, writing(f"h{number}", "held")) for number in range(3)]
            for number in range(5):
                store.commit(writing(f"f{number}", "free"))
            assert not any(answer.done() for answer in waiting)
        first, second, third = (answer.result(20) for answer in waiting)
        assert first < second < third, "in the order in which they came"


def waits_for_a_row(url: str) -> bool:
    """Return whether somebody stands still for a lock of this database."""
    with psycopg.connect(plain_url(url)) as connection:
        ask = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(ask).fetchone() != (0,)


def test_all_that_wait_for_a_row_share_its_next_commit(postgres_url: str) -> None:
    with (
        closing(open_store(postgres_url, shares_commits=True)) as store,
        psycopg.connect(plain_url(postgres_url)) as other,
    ):
        put(store, state("hot"), state("free"))
        other.execute("SELECT FROM workspaces WHERE id = 'hot' FOR UPDATE")
        stopper = Stopper(store)
        waiting = [submitted(store, writing(path, "hot")) for path in "abc"]
        stopper.let_go()
        store.commit(writing("d", "free"))
        assert not any(one.done() for one in waiting)
        wait_until(lambda: waits_for_a_row(postgres_url), what="the row is waited for")
        other.rollback()
        assert sorted(one.result(30) for one in waiting) == [2, 3, 4]
        commits = "SELECT count(DISTINCT xmin::text) FROM events WHERE workspace = 'hot'"
        assert other.execute(commits).fetchone() == (1,)


def test_a_row_that_is_passed_over_is_no_obstacle_to_whoever_passes_over(postgres_url: str) -> None:
    with closing(open_store(postgres_url, shares_commits=True)) as store:
        put(store, state("held"))
        with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
            other.execute("SELECT 1 FROM workspaces WHERE id = 'held' FOR UPDATE")
            unit = Unit(
                name="look", workspaces=("held",), step=lambda tx: tx.workspace("held") is None, passes_over=True
            )
            assert store.commit(unit)


def test_a_commit_waits_for_company_where_it_is_told_to(sqlite_url: str) -> None:
    with closing(open_store(sqlite_url, shares_commits=True, company_wait_ms=60_000)) as store:
        alone = submitted(store, writing("a"))
        assert not wait([alone], timeout=0.05).done
        submitted(store, writing("b"))
        hurried = submitted(store, writing("c", hurried=True))
        assert hurried.result(30) == 1, "who is in a hurry waits for nobody, and takes along who waits"
        assert alone.result(30) == 2
    assert paths(open_store(sqlite_url)) == ["c", "a", "b"]


def test_an_end_waits_for_no_company(sqlite_url: str) -> None:
    store = open_store(sqlite_url, shares_commits=True, company_wait_ms=60_000)
    alone = submitted(store, writing("a"))
    store.close()
    assert alone.result(0) == 1
