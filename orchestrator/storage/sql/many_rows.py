"""Many rows in one statement: one JSON text on PostgreSQL, a prepared statement run again on SQLite.

SQLAlchemy's own way prepares every value of every row, which cost a write more than the database did; psycopg's arrays
spell every value by itself in Python, which was a sixth of what a worker did (both measured).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from orchestrator.domain.encoding import format_instant
from orchestrator.storage.sql.schema import Instant
from orchestrator.storage.sql.statements import Statements

_encode = msgspec.json.Encoder().encode
_IN_JSON = {"BYTEA": "TEXT"}
_CHOSEN = {"BYTEA": """decode("{}", 'base64')"""}
"""Bytes go as base64, which is how msgspec spells them."""
_POSTGRES = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it without types


Rows = Sequence[Mapping[str, Any]]
"""Rows that all have the same columns."""

OnConflict = Callable[[sa.Table, tuple[str, ...]], str]


class ManyRows:
    """Rows for several tables, sent together: one statement on PostgreSQL, one a table on SQLite.

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
        names = tuple(rows[0])
        text = _insert_text(table, names, self._sql.dialect)
        if on_conflict is not None:
            text += on_conflict(table, names)
        if self._sql.dialect == "sqlite":
            instants = _instants(table, names)
            self._sql.run_many(text, [tuple(_spelled(row, instants).values()) for row in rows])
            return
        self._texts.append(text)
        self._values.append(_encode(rows).decode())

    def send(self) -> None:
        """Send what is not sent yet. Raises ``Conflict``, ``StorageUnavailable``."""
        if self._texts:
            *first, last = self._texts
            self._run(first, last)

    def send_drawing(self, table: sa.Table, rows: Rows, drawn: str) -> list[Any]:
        """Send it with rows of a table of PostgreSQL; return what the database drew for a column, in their order."""
        text = f"{_insert_text(table, tuple(rows[0]), self._sql.dialect)} RETURNING {drawn}"
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


def _spelled(row: Mapping[str, Any], instants: Collection[str]) -> Mapping[str, Any]:
    given = {name: format_instant(row[name]) for name in instants if row[name] is not None}
    return {**row, **given} if given else row


@cache
def _instants(table: sa.Table, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if isinstance(table.c[name].type, Instant))


@cache
def _insert_text(table: sa.Table, names: tuple[str, ...], dialect: str) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    if dialect == "sqlite":
        return f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 (our names)
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
