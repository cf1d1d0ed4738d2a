"""The store on PostgreSQL: row locks, one lock around appends, the server's clock.

The append lock makes positions equal commit order: without it a reader that remembers its last position
skipped a third of the events under 16 writers (measured). A trigger takes the same lock, so that nobody can forget it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from orchestrator.errors import StorageUnavailable, TimedOut
from orchestrator.storage.bounded_connection import BoundedConnection
from orchestrator.storage.engines import postgres_engine
from orchestrator.storage.event_store import SqlEventStore
from orchestrator.storage.sql.database_time import ServerTime
from orchestrator.storage.sql.statements import Statements, own_errors
from orchestrator.storage.urls import database_url

APPEND_LOCK = 7_311_423_940_867_843
"""Key of the advisory lock; the first migration's trigger names it too."""

# Not the sequence's own row: that takes SELECT on it, while this function is content with what an INSERT needs.
_LAST_POSITION: sa.ColumnElement[int] = sa.literal_column(
    "pg_sequence_last_value(CAST(pg_get_serial_sequence('events', 'position') AS regclass))", sa.BigInteger()
)


class PostgresEventStore(SqlEventStore):
    """``EventStore`` in a PostgreSQL database, given as ``postgresql://...``. Time is the server's.

    ``answer_within_s`` bounds the wait for a server that has stopped answering at all.
    """

    def __init__(self, url: str, *, answer_within_s: float = BoundedConnection.answer_within_s) -> None:
        engine = postgres_engine(database_url(url), answer_within_s=answer_within_s)
        reserve = postgres_engine(database_url(url), answer_within_s=answer_within_s, connections=1)
        super().__init__(engine, reserve, ServerTime())
        # One snapshot for all statements of a reader, as SQLite has it: sums and what they sum must agree.
        self._snapshots = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def _writing(self, *, reserved: bool = False) -> Iterator[Statements]:
        with own_errors(), (self._reserve if reserved else self._engine).begin() as connection:
            yield Statements(connection)

    @contextmanager
    def _reading(self) -> Iterator[Statements]:
        """Read, and commit: at a ROLLBACK psycopg forgets every statement that the session has prepared.

        Without that each transaction planned its statements anew (measured: an idle look 1.8 ms instead of 0.7).
        """
        with own_errors(), self._snapshots.begin() as connection:
            yield Statements(connection)

    @property
    def _last_position(self) -> sa.ColumnElement[int]:
        return _LAST_POSITION

    def _take_append_lock(self, sql: Statements) -> None:
        """Take the lock in a statement of its own: the next one must see what was committed while waiting.

        Who waits for it in vain waits for what all wait for: that is no ``TimedOut`` of the caller's workspaces.
        """
        try:
            sql.run_text("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))
        except TimedOut as error:
            sql.failure = StorageUnavailable(f"another transaction keeps the lock of all appends: {error}")
            raise sql.failure from error

    def _check_settings(self, sql: Statements) -> None:
        """Refuse a session in which a commit does not wait for the disk."""
        mode = sql.run(sa.text("SHOW synchronous_commit")).scalar_one()
        if mode != "on":
            raise StorageUnavailable(
                f"synchronous_commit is {mode!r} in this product's sessions, which loses acknowledged writes when the"
                " server dies; take the setting away from the role or the database, or the pooler that changes it"
            )

    def _check_writable(self, sql: Statements) -> None:
        """Refuse a standby, and a database that was told to take no writes; this transaction only reads anyway."""
        asks = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'"
        if sql.run(sa.text(asks)).scalar_one():
            raise StorageUnavailable("the database is a standby or read-only: it serves reads and stores no write")
