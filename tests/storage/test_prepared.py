"""Statements that are spelled once and handed to the driver as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from bench.statements import change
from orchestrator.errors import Conflict, MigrationsPending, StorageUnavailable
from orchestrator.storage.event_store import SqlEventStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.prepared import Prepared, one_of
from orchestrator.storage.sql.schema import heartbeats

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAMED = Prepared(
    lambda dialect: (
        sa.select(heartbeats.c.name, heartbeats.c.at)
        .where(one_of(heartbeats.c.name, "names", dialect), heartbeats.c.at >= sa.bindparam("since", type_=Instant()))
        .order_by(heartbeats.c.name)
    )
)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(url: str) -> Iterator[SqlEventStore]:
    with closing(open_store(url)) as opened:
        assert isinstance(opened, SqlEventStore)
        yield opened


def keep(store: SqlEventStore, *names: str) -> None:
    with store._writing() as sql:
        sql.run(sa.insert(heartbeats), [{"name": name, "at": AT} for name in names])


def test_values_and_rows_are_ours_whatever_the_driver_has(store: SqlEventStore) -> None:
    keep(store, "a", "b'; --", "c")
    with store._reading() as sql:
        assert sql.ask(NAMED, names=["b'; --", "a", "none"], since=AT) == [
            {"name": "a", "at": AT},
            {"name": "b'; --", "at": AT},
        ]
        assert sql.ask(NAMED, names=[], since=AT) == []


def test_constants_and_lists_are_part_of_a_statement(store: SqlEventStore) -> None:
    keep(store, "a", "b", "c")
    either = Prepared(
        lambda dialect: (
            sa.select(heartbeats.c.name)
            .where(sa.not_(one_of(heartbeats.c.name, ["a", "c"], dialect)), heartbeats.c.name != sa.literal("z"))
            .order_by(heartbeats.c.name)
        )
    )
    with store._reading() as sql:
        assert sql.ask(either) == [{"name": "b"}]
        assert sql.ask(either) == [{"name": "b"}]


def test_columns_need_names_of_their_own(store: SqlEventStore) -> None:
    twice = Prepared(lambda _: sa.select(sa.type_coerce(heartbeats.c.name, sa.Text), sa.literal(1)))
    doubled = Prepared(lambda _: sa.select(heartbeats.c.name, sa.literal(1).label("name")))
    with store._reading() as sql:
        assert list(sql.ask(twice)) == []
        with pytest.raises(TypeError, match="names of their own"):
            sql.ask(doubled)


def test_lists_that_sqlalchemy_would_spell_at_each_use_are_refused(store: SqlEventStore) -> None:
    listed = Prepared(lambda _: sa.select(heartbeats.c.name).where(heartbeats.c.name.in_(["a", "b"])))
    with store._reading() as sql, pytest.raises(TypeError, match="by `one_of`"):
        sql.ask(listed)


def test_what_the_driver_raises_is_ours(store: SqlEventStore, url: str) -> None:
    insert = "INSERT INTO heartbeats (name, at) VALUES ('a', '2026-01-02T03:04:05.000000Z')"
    keep(store, "a")
    with pytest.raises(Conflict, match="unique value"), store._writing() as sql:
        sql.run_text(insert, ())
    assert isinstance(sql.failure, Conflict)
    change(url, ["DROP TABLE heartbeats"])
    with pytest.raises(MigrationsPending, match="heartbeats"), store._reading() as sql:
        sql.ask(NAMED, names=["a"], since=AT)


def ask_after_a_cut(store: SqlEventStore, url: str) -> None:
    with store._writing() as sql:
        (own,) = sql.run_text("SELECT pg_backend_pid()", ())
        change(url, [f"SELECT pg_terminate_backend({own[0]}, 5000)"])
        try:
            sql.ask(NAMED, names=["a"], since=AT)
        finally:
            assert sql.connection.invalidated


def test_a_connection_that_was_cut_is_given_up(postgres_url: str) -> None:
    with closing(open_store(postgres_url)) as store:
        assert isinstance(store, SqlEventStore)
        with pytest.raises(StorageUnavailable):
            ask_after_a_cut(store, postgres_url)
        keep(store, "a")
        with store._reading() as sql:
            assert len(sql.ask(NAMED, names=["a"], since=AT)) == 1
