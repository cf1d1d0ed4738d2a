"""Many rows in one statement: one JSON text on PostgreSQL, a list of values on SQLite.

SQLAlchemy's own way prepares every value of every row, which cost a write more than the database did; psycopg's arrays
spell every value by itself in Python, which was a sixth of what a worker did (both measured). SQLite's driver gives
Python's lock away for each row of an ``executemany``, and whoever commits waits for it again as often.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from orchestrator.domain.encoding import format_instant
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.statements import Statements

_ROWS_AT_ONCE = 64
"""A statement of another number of rows is another one, which takes SQLite 2.5 us a row to prepare (measured)."""

_VALUES_AT_ONCE = 16_384
"""SQLite takes 32,766 (250,000 where a distributor says so, and 999 before 3.32)."""

_encode = msgspec.json.Encoder().encode
_IN_JSON = {"BYTEA": "TEXT"}
_CHOSEN = {"BYTEA": """decode("{}", 'base64')"""}
"""Bytes go as base64, which is how msgspec spells them."""
_POSTGRES = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it without types


Rows = Sequence[Mapping[str, Any]]
"""Rows that all have the same columns."""

OnConflict = Callable[[sa.Table, tuple[str, ...]], str]


class ManyRows:
    """Rows for several tables, sent together: one statement on PostgreSQL, one a table and 64 rows on SQLite.

    PostgreSQL carries all of one statement out on what was there before it: no two may touch the same row.
    """

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        self._texts: list[str] = []
        self._values: list[str] = []

    def insert(self, table: sa.Table, rows: Rows) -> None:
        """Insert rows. ``send`` raises ``Conflict`` where a unique value is taken."""
        self._add(table, rows)

    def upsert(self, table: sa.Table, rows: Rows) -> None:
        """Insert rows, or replace those with the same primary key."""
        self._add(table, rows, on_conflict=_replacing)

    def add(self, table: sa.Table, rows: Rows) -> None:
        """Insert rows, or add what is no key of them to those with the same primary key."""
        self._add(table, rows, on_conflict=_adding)

    def delete(self, column: sa.Column[str], values: Sequence[str]) -> None:
        """Delete the rows in which a column has one of these values."""
        if not values:
            return
        if self._sql.dialect == "sqlite":
            self._sql.run(sa.delete(column.table).where(column.in_(values)))
            return
        named = "SELECT json_array_elements_text(%s::json)"
        self._texts.append(f"DELETE FROM {column.table.name} WHERE {column.name} IN ({named})")  # noqa: S608 (our names)
        self._values.append(_encode(values).decode())

    def _add(self, table: sa.Table, rows: Rows, on_conflict: OnConflict | None = None) -> None:
        if not rows:
            return
        if self._sql.dialect == "sqlite":
            self._list(table, rows, on_conflict)
            return
        names = tuple(rows[0])
        text = _insert_text(table, names)
        if on_conflict is not None:
            text += on_conflict(table, names)
        self._texts.append(text)
        self._values.append(_encode(rows).decode())

    def _list(self, table: sa.Table, rows: Rows, on_conflict: OnConflict | None) -> None:
        """Run a statement for each so many rows."""
        names = tuple(rows[0])
        instants, then = _instants(table, names), "" if on_conflict is None else on_conflict(table, names)
        size = min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // len(names))
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            values: list[Any] = []
            for row in some:
                values += _spelled(row, instants) if instants else row.values()
            self._sql.run_text(_listing_text(table, names, len(some)) + then, values)

    def send(self) -> None:
        """Send what is not sent yet. Raises ``Conflict``, ``StorageUnavailable``."""
        if self._texts:
            *first, last = self._texts
            self._run(first, last)

    def send_drawing(self, table: sa.Table, rows: Rows, drawn: str) -> list[Any]:
        """Send it with rows of a table of PostgreSQL; return what the database drew for a column, in their order."""
        text = f"{_insert_text(table, tuple(rows[0]))} RETURNING {drawn}"
        self._values.append(_encode(rows).decode())
        return [row[0] for row in self._run(self._texts, text)]

    def _run(self, first: Sequence[str], last: str) -> list[Sequence[Any]]:
        named = ", ".join(f"part_{number} AS ({text})" for number, text in enumerate(first))
        values, self._texts, self._values = tuple(self._values), [], []
        return self._sql.run_text(f"WITH {named} {last}" if first else last, values)


def upsert_many(sql: Statements, table: sa.Table, rows: Rows) -> None:
    """Insert rows of one table, or replace those with the same primary key."""
    batch = ManyRows(sql)
    batch.upsert(table, rows)
    batch.send()


def _spelled(row: Mapping[str, Any], instants: Collection[int]) -> list[Any]:
    values = list(row.values())
    for index in instants:
        if values[index] is not None:
            values[index] = format_instant(values[index])
    return values


@cache
def _instants(table: sa.Table, names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(index for index, name in enumerate(names) if isinstance(table.c[name].type, Instant))


@cache
def _listing_text(table: sa.Table, names: tuple[str, ...], size: int) -> str:
    """Return SQLite's statement for so many rows."""
    columns = ", ".join(f'"{name}"' for name in names)
    row = f"({', '.join('?' * len(names))})"
    return f"INSERT INTO {table.name} ({columns}) VALUES {', '.join([row] * size)}"  # noqa: S608 (our names)


@cache
def _insert_text(table: sa.Table, names: tuple[str, ...]) -> str:
    """Return PostgreSQL's statement for the rows of a JSON text."""
    columns = ", ".join(f'"{name}"' for name in names)
    kinds = [table.c[name].type.compile(_POSTGRES).partition(" COLLATE ")[0] for name in names]
    typed = ", ".join(f'"{name}" {_IN_JSON.get(kind, kind)}' for name, kind in zip(names, kinds, strict=True))
    placed = f"ROWS FROM (json_to_recordset(%s::json) AS ({typed})) WITH ORDINALITY AS given({columns}, nth)"
    chosen = ", ".join(_CHOSEN.get(kind, '"{}"').format(name) for name, kind in zip(names, kinds, strict=True))
    return f"INSERT INTO {table.name} ({columns}) SELECT {chosen} FROM {placed} ORDER BY nth"  # noqa: S608 (our names)


@cache
def _replacing(table: sa.Table, names: tuple[str, ...]) -> str:
    return _on_conflict(table, names, '"{name}" = excluded."{name}"')


@cache
def _adding(table: sa.Table, names: tuple[str, ...]) -> str:
    return _on_conflict(table, names, '"{name}" = {table}."{name}" + excluded."{name}"')


def _on_conflict(table: sa.Table, names: tuple[str, ...], change: str) -> str:
    keys = [column.name for column in table.primary_key]
    changed = ", ".join(change.format(name=name, table=table.name) for name in names if name not in keys)
    return f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"
