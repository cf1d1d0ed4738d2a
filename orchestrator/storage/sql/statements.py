"""Running statements on one connection, with the drivers' errors turned into the product's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.errors import (
    Conflict,
    MigrationsPending,
    OrchestratorError,
    RolledBack,
    StorageUnavailable,
    TimedOut,
    Unreadable,
)

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]

ONE: sa.ColumnElement[int] = sa.literal_column("1", sa.Integer())
"""The limit of a look-up, written out: of a bound one PostgreSQL expects a tenth of all rows, and so plans the
statement anew at each use (measured: 240 instead of 60 us)."""

_SCHEMA_MISSING = {"42P01", "42703"}  # undefined_table, undefined_column
_REFUSED = {"42501"}  # insufficient_privilege
_ROLLED_BACK = {"40P01", "40001"}  # deadlock_detected, serialization_failure
_TOOK_TOO_LONG = {"57014", "55P03"}  # query_canceled, lock_not_available
_STANDBY = {"0A000"}  # feature_not_supported: what a standby answers to BEGIN READ WRITE
_OUT_OF_TIME = "timestamp too"  # psycopg of `infinity` and of years that Python does not have
_BYTES = "JSON cannot hold BLOB"  # SQLite's of a column of text or numbers into which somebody has put bytes
_SCHEMA_MISSING_WORDS = ("no such table", "no such column", "has no column named")
_UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


class Statements:
    """One connection inside a transaction. Every error of the database leaves as one of ours.

    ``failure`` keeps the first: PostgreSQL answers the COMMIT of a failed transaction with a silent
    rollback, so whoever commits must look at it.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.failure: Exception | None = None

    @property
    def dialect(self) -> str:
        """Return ``postgresql`` or ``sqlite``."""
        return self.connection.dialect.name

    def run(self, statement: sa.Executable, rows: Rows | None = None) -> sa.CursorResult[*tuple[Any, ...]]:
        """Execute, once for each of ``rows`` where they are given.

        Raises ``Conflict`` where a unique value is taken, ``MigrationsPending`` where a table is missing
        and ``StorageUnavailable`` for all other trouble that is not a mistake in this program.
        """
        try:
            return self.connection.execute(statement, rows)
        except exc.SQLAlchemyError as error:
            raise self._failed(error) from error

    def run_text(self, text: str, values: Any) -> sa.CursorResult[*tuple[Any, ...]]:
        """Execute plain SQL of this database's own spelling: a tuple of values, or for SQLite a list of them.

        Raises what ``run`` raises.
        """
        try:
            return self.connection.exec_driver_sql(text, values)
        except exc.SQLAlchemyError as error:
            raise self._failed(error) from error

    def _failed(self, error: exc.SQLAlchemyError) -> OrchestratorError:
        """Note that the transaction is lost; return the product's error. This program's own mistakes are raised."""
        self.failure = error
        self.failure = ours = own_error(error)
        return ours

    def fetch(self, statement: sa.Executable, values: Rows | None = None) -> list[tuple[Any, ...]]:
        """Return all rows as the driver made them: for passes over the whole log, where SQLAlchemy's rows cost a third.

        Raises what ``run`` raises.
        """
        result = self.run(statement, values)
        cursor = result.cursor
        try:
            return list(cursor.fetchall())
        except self.connection.dialect.loaded_dbapi.Error as error:
            self.failure = ours = _unserved(str(error))
            raise ours from error
        finally:
            result.close()

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """Return the insert of this database, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)

    def json(self, column: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return a column of JSON text as something that can be indexed by name."""
        return as_json(column, self.dialect)


def as_json(column: sa.ColumnElement[str], dialect: str) -> sa.ColumnElement[Any]:
    """Return a column of JSON text as something that can be indexed by name."""
    return sa.type_coerce(column, sa.JSON) if dialect == "sqlite" else sa.cast(column, postgresql.JSON)


@contextmanager
def own_errors() -> Iterator[None]:
    """Turn what the database raises inside, at connecting and at COMMIT too, into the product's own errors."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise own_error(error) from error


def own_error(error: exc.SQLAlchemyError) -> OrchestratorError:
    """Return the product's error for one of the database's; a mistake in this program is raised again as it is."""
    code = str(getattr(getattr(error, "orig", None), "sqlstate", ""))
    said = str(getattr(error, "orig", None) or error).strip()
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"another transaction took the same unique value first: {said}; read again and decide again")
    if code in _SCHEMA_MISSING or any(words in said for words in _SCHEMA_MISSING_WORDS):
        return MigrationsPending(f"the database lacks what this version needs: {said}; run `orchestrator migrate`")
    if code in _REFUSED:
        return StorageUnavailable(
            f"this login may not do that: {said}; connect as the app's role, or grant it with `orchestrator migrate`"
        )
    if code in _ROLLED_BACK:
        return RolledBack(f"the database does not serve now: {said}; try again")
    if code in _TOOK_TOO_LONG:
        return TimedOut(f"the database ended a statement that took too long: {said}; try again")
    plain = isinstance(error, exc.DatabaseError) and type(error) is exc.DatabaseError
    if isinstance(error, _UNAVAILABLE) or plain or code in _STANDBY or _OUT_OF_TIME in said:
        return _unserved(said)
    raise error


def _unserved(said: str) -> OrchestratorError:
    if _OUT_OF_TIME in said:
        return Unreadable(f"the database holds an instant that no clock gave: {said}")
    if _BYTES in said:
        return Unreadable(f"the database holds bytes where text or a number belongs: {said}")
    return StorageUnavailable(f"the database does not serve now: {said}; try again")
