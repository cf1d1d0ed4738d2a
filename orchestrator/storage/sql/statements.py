"""Running statements on one connection, with the drivers' errors turned into the product's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from orchestrator.storage.sql.prepared import Prepared, Row

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]

hearers: list[Callable[[sa.Connection, str, Any], object]] = []
"""Who is told of each statement that goes to the driver past SQLAlchemy, whose own events do not know of it: for
whoever counts or explains what is sent."""

ONE: sa.ColumnElement[int] = sa.literal_column("1", sa.Integer())
"""The limit of a look-up, written out: of a bound one PostgreSQL expects a tenth of all rows, and so plans the
statement anew at each use (measured: 240 instead of 60 us)."""

_SCHEMA_MISSING = {"42P01", "42703"}  # undefined_table, undefined_column
_REFUSED = {"42501"}  # insufficient_privilege
_ROLLED_BACK = {"40P01", "40001"}  # deadlock_detected, serialization_failure
_TOOK_TOO_LONG = {"57014", "55P03"}  # query_canceled, lock_not_available
_STANDBY = {"0A000"}  # feature_not_supported: what a standby answers to BEGIN READ WRITE
_FOR_PEOPLE = {
    "password authentication failed": "correct the user or the password in ORCHESTRATOR_DATABASE_URL",
    "no password supplied": "ORCHESTRATOR_DATABASE_URL names no password, and this login needs one",
    "no pg_hba.conf entry": "the server does not let this user in from here: correct the URL or pg_hba.conf",
    'FATAL:  database "': "create it, or correct its name in ORCHESTRATOR_DATABASE_URL",
    'FATAL:  role "': "create it, or correct the user in ORCHESTRATOR_DATABASE_URL",
    "unable to open database file": (
        "its folder is missing, or this user may not write there: name another by --data or ORCHESTRATOR_DATABASE_URL"
    ),
}
"""What a person can mend, by PostgreSQL's words (untranslated: those before the colon may be) and SQLite's."""
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

    def ask(self, prepared: Prepared, **values: Any) -> list[Row]:
        """Execute a prepared selection; return its rows by the names of their columns. Raises what ``run`` raises."""
        spelled = prepared.on(self.connection.dialect)
        return spelled.rows(self.run_text(spelled.text, spelled.values(values)))

    def run_text(self, text: str, values: Sequence[Any] | Mapping[str, Any]) -> list[Sequence[Any]]:
        """Execute plain SQL of this database's own spelling; return what the driver gives. Raises what ``run`` raises.

        Without SQLAlchemy between: it took more of a commit's time than the database did (measured).
        """
        for hear in hearers:
            hear(self.connection, text, values)
        dialect = self.connection.dialect
        raw = self.connection.connection
        try:
            cursor = raw.cursor()
            try:
                cursor.execute(text, values)
                return list(cursor.fetchall()) if _gives_rows(cursor, dialect.name) else []
            finally:
                cursor.close()
        except dialect.loaded_dbapi.Error as error:
            base = dialect.loaded_dbapi.Error
            raised = exc.DBAPIError.instance(None, None, error, base, dialect=dialect)
            if dialect.is_disconnect(error, raw.dbapi_connection, None):
                self.connection.invalidate(error)
            raise self._failed(raised) from error

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


def _gives_rows(cursor: Any, dialect: str) -> bool:
    """Return whether there is anything to fetch; psycopg makes a ``description`` anew at each use, a value a column."""
    return cursor.description is not None if dialect == "sqlite" else cursor.rownumber is not None


def is_refused(error: exc.DBAPIError) -> bool:
    """Return whether the database refused what the login may not do."""
    return getattr(error.orig, "sqlstate", None) in _REFUSED


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
            f"this login may not do that: {said}; connect as the role that is for it (`migrate`: the owner; api, worker"
            " and beat: the app's; commands that read: the reader's), or let the owner's `orchestrator migrate` grant"
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
    hint = next((hint for words, hint in _FOR_PEOPLE.items() if words in said), "try again")
    return StorageUnavailable(f"the database does not serve now: {said}; {hint}")
