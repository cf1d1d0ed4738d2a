"""What only PostgreSQL can do to us: locks of several sessions, servers that stop, sessions that are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from orchestrator.errors import MigrationsPending, StorageUnavailable
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.storage import engines
from orchestrator.storage.engines import POSTGRES_CONNECTIONS
from orchestrator.storage.postgres import APPEND_LOCK, PostgresEventStore
from orchestrator.storage.urls import database_url
from tests.conftest import PrivatePostgres
from tests.storage.samples import NOON, at, file_written, log, put, registration, state
from tests.waiting import wait_until


@contextmanager
def opened(url: str, *settings: str, answer_within_s: float = 35.0) -> Iterator[PostgresEventStore]:
    """Open a store whose sessions have these settings too."""
    options = quote(" ".join(f"-c {setting}" for setting in settings))
    store = PostgresEventStore(f"{url}?options={options}", answer_within_s=answer_within_s)
    yield store
    store.close()


@pytest.fixture
def session(postgres_url: str) -> Iterator[psycopg.Connection]:
    """Somebody else's session in the same database, in a transaction."""
    url = database_url(postgres_url)
    with psycopg.connect(host=url.host, port=url.port, user=url.username, dbname=url.database) as connection:
        yield connection


def waiting_for_locks(session: psycopg.Connection, database_sessions: int) -> Callable[[], bool]:
    """Return whether so many sessions of this database wait for a lock."""
    asks = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
    )

    def are_waiting() -> bool:
        # Statistics are fixed for a transaction at their first use.
        session.execute("SELECT pg_stat_clear_snapshot()")
        found = session.execute(asks).fetchone()
        return found == (database_sessions,)

    return are_waiting


def end_other_sessions(session: psycopg.Connection) -> None:
    session.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    session.rollback()  # the list of sessions is fixed for a transaction


def test_a_locked_row_is_left_out(postgres_url: str, session: psycopg.Connection) -> None:
    with opened(postgres_url) as store:
        put(store, state("a"), state("b"))
        session.execute("SELECT 1 FROM workspaces WHERE id = 'a' FOR UPDATE")
        with store.write(["a", "b"], skip_locked=True) as transaction:
            assert transaction.locked() == ("b",)
            assert transaction.workspace("a") is None


def test_a_row_that_stays_locked_is_given_up(postgres_url: str, session: psycopg.Connection) -> None:
    with opened(postgres_url, "lock_timeout=100ms") as store:
        put(store, state("a"))
        session.execute("SELECT 1 FROM workspaces WHERE id = 'a' FOR UPDATE")
        with pytest.raises(StorageUnavailable, match="lock timeout"), store.write(["a"]):
            pass
        session.rollback()
        with store.write(["a"]) as transaction:
            assert transaction.locked() == ("a",)


def test_a_row_added_while_waiting_for_the_append_lock_is_found(postgres_url: str, session: psycopg.Connection) -> None:
    def find(store: EventStore) -> StoredWorkspace | None:
        with store.write(["new"]) as transaction:
            return transaction.workspace("new")

    with opened(postgres_url) as store, ThreadPoolExecutor(1) as pool:
        with store.write(["new"]) as transaction:
            found = pool.submit(find, store)
            wait_until(waiting_for_locks(session, 1), what="the second writer waits for the append lock")
            transaction.save([StoredWorkspace(state=state("new", version=4), due_at=NOON)])
        assert found.result(timeout=10) == StoredWorkspace(state=state("new", version=4), due_at=NOON)


def test_who_waited_for_a_row_sees_the_registration_that_was_changed_meanwhile(
    postgres_url: str, session: psycopg.Connection
) -> None:
    """PostgreSQL reads a row again that it waited for, and not what is joined to it: see ``findings``."""
    blue = state("a", "blue")
    red = replace(blue, registration=registration("red"), registration_position=7, version=2)

    def find(store: EventStore) -> StoredWorkspace | None:
        with store.write(["a"]) as transaction:
            return transaction.workspace("a")

    with opened(postgres_url) as store, ThreadPoolExecutor(1) as pool:
        put(store, blue, due_at=at(5))
        with store.write(["a"]) as transaction:
            found = pool.submit(find, store)
            wait_until(waiting_for_locks(session, 1), what="the other waits for row a")
            transaction.save([StoredWorkspace(state=red, due_at=at(6))])
        assert found.result(timeout=10) == StoredWorkspace(state=red, due_at=at(6))


def test_the_trigger_takes_the_lock_that_writers_take(postgres_url: str, session: psycopg.Connection) -> None:
    session.execute(
        "INSERT INTO events (id, type, schema, data, actor, recorded_at)"
        " VALUES ('evt_x', 'FileWritten', 1, '{}', 'me', clock_timestamp())"
    )
    with opened(postgres_url, "lock_timeout=100ms") as store:
        free = sa.text("SELECT pg_try_advisory_lock(:key)")
        engine = sa.create_engine(database_url(postgres_url), poolclass=sa.NullPool)
        with engine.connect() as connection:
            assert connection.execute(free, {"key": APPEND_LOCK}).scalar_one() is False
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            log(store, file_written())


def test_a_server_clock_that_stepped_back(postgres_url: str, session: psycopg.Connection) -> None:
    with opened(postgres_url) as store:
        session.execute(
            "INSERT INTO events (id, type, schema, data, actor, recorded_at) VALUES ('evt_x', 'FileWritten', 1,"
            """ '{"action":"restart","digest":null,"op":"created","path":"a","size":null}', 'me',"""
            " clock_timestamp() + interval '1 hour')"
        )
        session.commit()
        [second] = log(store, file_written())
        with store.write() as transaction:
            assert transaction.now == second.recorded_at
            assert 3_590_000 < transaction.clock_behind_ms <= 3_600_000
        put(store, state(), due_at=second.recorded_at)
        with store.read() as reader:
            assert [event.recorded_at for event in reader.events(EventFilter())] == [second.recorded_at] * 2
            assert reader.clock() < second.recorded_at
            assert reader.due_workspaces(1) == ["ws"]


def test_a_session_cut_in_mid_transaction(postgres_url: str, session: psycopg.Connection) -> None:
    with opened(postgres_url) as store:
        log(store, file_written())

        def write_and_be_cut(*, before_commit: bool) -> None:
            with store.write(["ws"]) as transaction:
                if before_commit:
                    transaction.append([file_written()])
                end_other_sessions(session)
                if not before_commit:
                    transaction.append([file_written()])

        for before_commit in (True, False):
            with pytest.raises(StorageUnavailable):
                write_and_be_cut(before_commit=before_commit)
        log(store, file_written())
        with store.read() as reader:
            assert len(reader.events(EventFilter())) == 2


def test_a_writer_that_stalls_loses_its_session_and_lets_others_on(postgres_url: str) -> None:
    def stall(store: EventStore, other: EventStore) -> None:
        with store.write() as transaction:
            transaction.append([file_written("lost")])
            log(other, file_written("kept"))  # waits until the stalled session is cut
            transaction.append([file_written("lost too")])

    with opened(postgres_url, "idle_in_transaction_session_timeout=200ms") as slow, opened(postgres_url) as other:
        with pytest.raises(StorageUnavailable):
            stall(slow, other)
        with other.read() as reader:
            assert [getattr(event.data, "path", "") for event in reader.events(EventFilter())] == ["kept"]


def test_a_database_that_only_reads(postgres_url: str) -> None:
    with opened(postgres_url, "default_transaction_read_only=on") as store:
        for call in (store.check, lambda: log(store, file_written())):
            with pytest.raises(StorageUnavailable, match="read-only"):
                call()
        store.check(reads_only=True)
        with store.read() as reader:
            assert reader.last_position() == 0


def test_commits_that_do_not_wait_for_the_disk_are_refused(postgres_url: str) -> None:
    with opened(postgres_url, "synchronous_commit=off") as store, pytest.raises(StorageUnavailable, match="'off'"):
        store.check()


def test_a_pool_that_is_used_up(postgres_url: str) -> None:
    with opened(postgres_url) as store, ExitStack() as busy:
        for _ in range(POSTGRES_CONNECTIONS):
            busy.enter_context(store.read()).last_position()
        with pytest.raises(StorageUnavailable):
            store.check()
        assert store.renew_leases({"ws": (1, 1_000)}).kept == set(), "slow readers must not cost a worker its leases"
        busy.close()
        store.check()


def test_a_role_that_may_not_read(postgres_url: str, session: psycopg.Connection) -> None:
    session.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC")
    session.execute("DROP ROLE IF EXISTS stranger")
    session.execute("CREATE ROLE stranger LOGIN")
    session.commit()
    url = database_url(postgres_url).set(username="stranger")
    with opened(url.render_as_string()) as store, pytest.raises(StorageUnavailable, match="permission denied"):
        log(store, file_written())


def test_a_database_without_tables(postgres_url: str, session: psycopg.Connection) -> None:
    with opened(postgres_url) as store:
        session.execute("DROP TABLE workspaces, heartbeats")
        session.commit()
        for call in (store.ticked, lambda: put(store, state()), lambda: store.renew_leases({"ws": (1, 1)})):
            with pytest.raises(MigrationsPending):
                call()


def test_a_server_that_is_frozen_then_stopped_then_back(private_postgres: PrivatePostgres) -> None:
    with opened(private_postgres.url, answer_within_s=0.5) as store:
        log(store, file_written())
        private_postgres.server.pause()
        try:
            with pytest.raises(StorageUnavailable):
                log(store, file_written())
        finally:
            private_postgres.server.resume()
        private_postgres.server.kill()
        with pytest.raises(StorageUnavailable):
            store.check()
        private_postgres.server.start()
        log(store, file_written())
        with store.read() as reader:
            assert len(reader.events(EventFilter())) == 2


def cut_all_others(session: psycopg.Connection) -> None:
    """End all other sessions of this database, as an administrator may."""
    session.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
    )
    session.commit()


def test_a_connection_that_died_while_nobody_used_it_is_replaced(
    postgres_url: str, session: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_ASKED_AFTER_S", 0.0)
    with opened(postgres_url) as store:
        put(store, state("a"))
        cut_all_others(session)
        put(store, state("b"))
        with store.read() as reader:
            assert [reader.workspace(name) is not None for name in ("a", "b")] == [True, True]


def test_one_that_died_just_now_fails_once_and_no_more(postgres_url: str, session: psycopg.Connection) -> None:
    with opened(postgres_url) as store:
        put(store, state("a"))
        cut_all_others(session)
        with suppress(StorageUnavailable):  # a slow machine may have asked
            put(store, state("b"))
        put(store, state("b"))
