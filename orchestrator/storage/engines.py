"""Engines: how connections are made, set up and pooled on each database."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.errors import BeyondMigration
from orchestrator.private_files import close_database_file
from orchestrator.storage.bounded_connection import BoundedConnection

_SQLITE_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL may lose the last commits when the power fails
    "foreign_keys = ON",
    "recursive_triggers = ON",  # or INSERT OR REPLACE gets past the trigger that refuses DELETE
)
_POSTGRES_SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",  # a stalled appender would hold everybody's append lock
    "synchronous_commit": "on",  # off lost 122 acknowledged writes when the server was killed
    "timezone": "UTC",
}
_POSTGRES_CONNECTION = {
    "connect_timeout": 3,
    # A server that vanished without a word is noticed within about 10 s instead of after 15 minutes.
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

_USED_AT_S = "used_at_s"
_ASKED_AFTER_S = 0.05
"""A connection that was not used for so long is asked whether it lives: no server stops and is back sooner. Asking at
each use, as SQLAlchemy's own ``pool_pre_ping`` does, was an eighth of what a worker's commits took (measured)."""

SQLITE_CONNECTIONS = 25
POSTGRES_CONNECTIONS = 20
"""How many one process has at most; who finds them all in use waits for 2 s. Leases have one more of their own."""


def sqlite_engine(url: sa.URL, *, busy_timeout_ms: int = 5_000, connections: int = SQLITE_CONNECTIONS) -> sa.Engine:
    """Return an engine that begins transactions itself: DEFERRED, or as the option ``sqlite_begin`` says."""
    engine = sa.create_engine(url, poolclass=sa.QueuePool, pool_timeout=2.0, **_pool_of(connections, kept=5))

    @event.listens_for(engine, "do_connect")
    def _close_to_others(dialect: object, record: object, arguments: Any, options: Any) -> None:
        if url.database and not url.query:  # with options it may be a URI, or one that is only read
            with suppress(OSError):  # SQLite says it better
                close_database_file(Path(url.database))

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        for pragma in (f"busy_timeout = {busy_timeout_ms}", *_SQLITE_PRAGMAS):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        raw = connection.connection.driver_connection
        try:  # past SQLAlchemy, which takes ten times as long as the statement does (measured)
            raw.execute(f"BEGIN {mode}")  # type: ignore[union-attr]
        except sqlite3.Error as error:
            raise exc.DBAPIError.instance(None, None, error, sqlite3.Error, dialect=engine.dialect) from error

    return engine


def postgres_engine(
    url: sa.URL,
    *,
    answer_within_s: float = BoundedConnection.answer_within_s,
    connections: int = POSTGRES_CONNECTIONS,
) -> sa.Engine:
    """Return an engine whose sessions never wait without a bound: for a connection, a lock or an answer.

    ``?options=-c ...`` of the URL comes after these settings, so an operator's own word wins.
    """
    settings = [f"-c {name}={value}" for name, value in _POSTGRES_SETTINGS.items()]
    given = url.query.get("options", ())
    settings += [given] if isinstance(given, str) else given
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        connect_args={**_POSTGRES_CONNECTION, "options": " ".join(settings)},
        pool_timeout=2.0,
        pool_use_lifo=True,  # the one that was used just now need not be asked
        **_pool_of(connections, kept=10),
    )

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: object, record: object, arguments: Any, options: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(*arguments, **options)
        connection.answer_within_s = answer_within_s
        _require_utf8(connection)
        return connection

    @event.listens_for(engine, "checkin")
    def _forget_read_only(connection: BoundedConnection | None, record: ConnectionPoolEntry) -> None:
        # After a reader SQLAlchemy asks for READ WRITE, which would overrule an operator's read-only database.
        if connection is not None and not connection.closed:
            connection.read_only = None
        record.info[_USED_AT_S] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ask_if_it_lives(connection: BoundedConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        if time.monotonic() - record.info.get(_USED_AT_S, time.monotonic()) < _ASKED_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)  # type: ignore[arg-type]  # psycopg's, as it is
        except psycopg.Error as error:
            raise exc.InvalidatePoolError("the connection is dead, and so are those that are as old") from error

    return engine


def _pool_of(connections: int, *, kept: int) -> dict[str, int]:
    """Return a pool's size: of ``connections`` at most ``kept`` stay open while nobody uses them."""
    kept = min(kept, connections)
    return {"pool_size": kept, "max_overflow": connections - kept}


def migration_engine(url: sa.URL) -> sa.Engine:
    """Return an engine for changes of the schema, which may take long and wait for each other."""
    if url.get_backend_name() == "sqlite":
        return sqlite_engine(url, busy_timeout_ms=60_000).execution_options(sqlite_begin="IMMEDIATE")
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=_POSTGRES_CONNECTION)

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: object, record: object, arguments: Any, options: Any) -> psycopg.Connection[Any]:
        connection = psycopg.connect(*arguments, **options)
        _require_utf8(connection)
        return connection

    return engine


def _require_utf8(connection: psycopg.Connection[Any]) -> None:
    """Raise ``BeyondMigration`` for a database in another encoding: it cannot keep every path. Asks the server nothing.

    Here, before SQLAlchemy's own first question, which fails at what such a database answers.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise BeyondMigration(
            f"the database's encoding is {encoding}, which cannot keep every path; make one for this product with"
            " CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0 and name that"
        )
