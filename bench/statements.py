"""What a question asks of the database: its statements, recorded while it is asked and then sent again by the driver.

Time at the database is the time of all its statements, one after the other, on one connection of the raw driver:
execute and fetchall, round trips included, nothing of the product around them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from orchestrator.ports.store import EventStore, Reader
from orchestrator.storage.sql.schema import events
from orchestrator.storage.sql.statements import hearers
from orchestrator.storage.urls import SQLITE, database_url

COLUMNS = ", ".join(f'"{column.name}"' for column in events.columns)
"""All columns of an event, as SQL lists them."""
DATA = list(events.columns.keys()).index("data")
"""Where in a row an event's data is."""
_WHOLE = f"SELECT {COLUMNS} FROM events ORDER BY position"
_AT_ONCE = 2_000


@dataclass(frozen=True)
class Statement:
    """One statement as the driver was given it."""

    sql: str
    parameters: Any


class Cursor(Protocol):
    """What the drivers' cursors share."""

    def execute(self, sql: Any, parameters: Any = ..., /) -> object:
        """Send a statement."""
        ...

    def fetchall(self) -> Sequence[Any]:
        """Return all its rows."""
        ...

    def fetchmany(self, size: int = ..., /) -> Sequence[Any]:
        """Return the next of its rows."""
        ...


@contextmanager
def heard(hear: Callable[[sa.Connection, str, Any], object]) -> Iterator[None]:
    """Have somebody told of every statement but BEGIN that is sent meanwhile: connection, text, parameters."""

    def note(connection: sa.Connection, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if not sql.startswith("BEGIN"):
            hear(connection, sql, parameters)

    event.listen(sa.Engine, "before_cursor_execute", note)
    hearers.append(hear)
    try:
        yield
    finally:
        hearers.remove(hear)
        event.remove(sa.Engine, "before_cursor_execute", note)


@contextmanager
def recorded() -> Iterator[list[Statement]]:
    """Yield a list that is filled with every statement that is sent meanwhile."""
    found: list[Statement] = []
    with heard(lambda _, sql, parameters: found.append(Statement(sql, parameters))):
        yield found


def asked(store: EventStore, ask: Callable[[Reader], object]) -> list[Statement]:
    """Ask a question of the store, and return the statements that it took."""
    with recorded() as found, store.read() as reader:
        ask(reader)
    return found


@contextmanager
def driver(url: str) -> Iterator[Cursor]:
    """Yield a cursor of the raw driver, in one transaction."""
    parsed = database_url(url)
    if parsed.get_backend_name() == SQLITE:
        lite = sqlite3.connect(str(parsed.database), isolation_level=None)
        lite.execute("BEGIN")
        try:
            yield lite.cursor()
        finally:
            lite.close()
        return
    with psycopg.connect(plain_url(url)) as connection, connection.cursor() as cursor:
        yield cursor


def plain_url(url: str) -> str:
    """Return a PostgreSQL URL as the driver takes it."""
    return database_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def whole_log(url: str) -> Iterator[Sequence[Any]]:
    """Yield all columns of all events, in order and in pages, through the raw driver; PostgreSQL keeps the cursor."""
    if database_url(url).get_backend_name() == SQLITE:
        with driver(url) as cursor:
            cursor.execute(_WHOLE)
            yield from iter(lambda: cursor.fetchmany(_AT_ONCE), [])
        return
    with psycopg.connect(plain_url(url)) as connection, connection.cursor("whole_log") as cursor_there:
        cursor_there.execute(_WHOLE)
        yield from iter(lambda: cursor_there.fetchmany(_AT_ONCE), [])


def change(url: str, statements: Sequence[str]) -> None:
    """Change the database and commit."""
    engine = sa.create_engine(database_url(url), poolclass=sa.NullPool)
    with closing(engine.connect()) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
        connection.commit()


def look_up(url: str, position: int) -> Statement:
    """Return the look-up of one event by its primary key, all columns."""
    mark = "?" if database_url(url).get_backend_name() == SQLITE else "%s"
    return Statement(f"SELECT {COLUMNS} FROM events WHERE position = {mark}", (position,))


def send(cursor: Cursor, statements: Sequence[Statement]) -> int:
    """Send statements and fetch all their rows; return how many rows came."""
    rows = 0
    for statement in statements:
        cursor.execute(statement.sql, statement.parameters)
        rows += len(cursor.fetchall())
    return rows
