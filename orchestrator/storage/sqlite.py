"""The store on SQLite: one file, one writer at a time, the host's clock.

Measured: SQLAlchemy's default transactions gave 105 duplicate versions in 800 appends, silently; a deferred BEGIN
gave 150,000 busy errors; BEGIN IMMEDIATE gave neither. SQLite's busy handler is unfair (waits of 3 s), so
the writers of one process queue at a lock of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from orchestrator.errors import StorageUnavailable
from orchestrator.ports.store import Clock
from orchestrator.storage.engines import SQLITE_CONNECTIONS, sqlite_engine
from orchestrator.storage.event_store import SqlEventStore
from orchestrator.storage.sql.database_time import HostClock, HostTime
from orchestrator.storage.sql.statements import Statements, own_errors
from orchestrator.storage.urls import database_url

_WRITER_WAITS_S = 5.0
_LAST_POSITION: sa.ColumnElement[int] = sa.literal_column(
    "(SELECT seq FROM sqlite_sequence WHERE name = 'events')", sa.Integer()
)


class SqliteEventStore(SqlEventStore):
    """``EventStore`` in one SQLite file, given as ``sqlite:///PATH``.

    ``busy_timeout_ms`` bounds the wait for another process that writes.
    """

    def __init__(self, url: str, clock: Clock | None = None, *, busy_timeout_ms: int = 5_000) -> None:
        engine, reserve = (
            sqlite_engine(database_url(url), busy_timeout_ms=busy_timeout_ms, connections=connections)
            for connections in (SQLITE_CONNECTIONS, 1)
        )
        super().__init__(engine, reserve, HostTime(clock or HostClock()))
        self._immediate = {
            reserved: pool.execution_options(sqlite_begin="IMMEDIATE")
            for reserved, pool in ((False, engine), (True, reserve))
        }
        self._writer = threading.Lock()

    @contextmanager
    def _writing(self, *, reserved: bool = False) -> Iterator[Statements]:
        if not self._writer.acquire(timeout=_WRITER_WAITS_S):
            raise StorageUnavailable(f"other writers of this process kept the database for {_WRITER_WAITS_S:g} s")
        try:
            with own_errors(), self._immediate[reserved].begin() as connection:
                yield Statements(connection)
        finally:
            self._writer.release()

    @contextmanager
    def _reading(self) -> Iterator[Statements]:
        with own_errors(), self._engine.connect() as connection:
            yield Statements(connection)

    @property
    def _last_position(self) -> sa.ColumnElement[int]:
        return _LAST_POSITION

    def _take_append_lock(self, sql: Statements) -> None:
        """Do nothing: BEGIN IMMEDIATE keeps every other writer out already."""

    def _check_settings(self, sql: Statements) -> None:
        """Refuse a file that cannot have a write-ahead log, as on a network file system."""
        mode = sql.run(sa.text("PRAGMA journal_mode")).scalar_one()
        if mode != "wal":
            raise StorageUnavailable(f"SQLite runs in journal mode {mode!r}, not WAL; put the file on a local disk")

    def _check_writable(self, sql: Statements) -> None:
        """Do nothing: a file has no standby, and one that may not be written cannot have a write-ahead log."""
