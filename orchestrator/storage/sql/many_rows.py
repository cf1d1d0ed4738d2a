"""Many rows in one statement: one JSON text on PostgreSQL, a prepared statement run again on SQLite.

SQLAlchemy's own way prepares every value of every row, which cost a write more than the database did; psycopg's arrays
spell every value by itself in Python, which was a sixth of what a worker did (both measured).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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


def insert_many(sql: Statements, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns. Raises ``Conflict`` where a unique value is taken."""
    if rows:
        _send(sql, table, rows, replaces=False)


def upsert_many(sql: Statements, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns, or replace those with the same primary key."""
    if rows:
        _send(sql, table, rows, replaces=True)


def insert_drawing(sql: Statements, table: sa.Table, rows: Sequence[Mapping[str, Any]], drawn: str) -> list[Any]:
    """Insert rows into a table of PostgreSQL; return what the database drew for that column, in the rows' order."""
    names = tuple(rows[0])
    text = f"{_insert_text(table, names, sql.dialect)} RETURNING {drawn}"
    return [row[0] for row in sql.run_text(text, _as_json(rows)).all()]


def _send(sql: Statements, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, replaces: bool) -> None:
    names = tuple(rows[0])
    text = _insert_text(table, names, sql.dialect)
    if replaces:
        text += _replacing(table, names)
    if sql.dialect == "sqlite":
        instants = _instants(table, names)
        sql.run_text(text, [tuple(_spelled(row, instants).values()) for row in rows])
    else:
        sql.run_text(text, _as_json(rows))


def _as_json(rows: Sequence[Mapping[str, Any]]) -> tuple[str]:
    return (_encode(rows).decode(),)


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
    keys = [column.name for column in table.primary_key]
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in keys)
    return f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"
