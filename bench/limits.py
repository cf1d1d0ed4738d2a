"""What the databases can store at best: rows of an event's size, so many a commit, durably, from one connection."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psycopg

from tests.servers.postgres import PostgresServer

_DATA = json.dumps({"action": "restart", "op": "modified", "path": "src/app/module_07/view.py"})
_ACTOR = "local:somebody"


def rows_on_sqlite(folder: Path, *, together: int, seconds: float) -> float:
    """Return the rows a second that SQLite takes with WAL and every commit synced."""
    path = folder / "limit.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS rows (position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE,"
            " workspace TEXT NOT NULL, data TEXT NOT NULL, actor TEXT NOT NULL, at TEXT NOT NULL)"
        )
        stored, until, began = 0, time.perf_counter() + seconds, time.perf_counter()
        while time.perf_counter() < until:
            rows = [_row(began, stored + number) for number in range(together)]
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO rows (id, workspace, data, actor, at) VALUES (?, ?, ?, ?, ?)", rows)
            database.execute("COMMIT")
            stored += together
        took_s = time.perf_counter() - began
    path.unlink()
    return stored / took_s


def rows_on_postgres(server: PostgresServer, *, together: int, seconds: float) -> float:
    """Return the rows a second that PostgreSQL takes as one statement and one commit for so many."""
    name = server.create_database()
    insert = (
        "INSERT INTO rows (id, workspace, data, actor, at)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
    )
    with server.connect(name) as connection:
        connection.execute(
            "CREATE TABLE rows (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text UNIQUE,"
            " workspace text NOT NULL, data text NOT NULL, actor text NOT NULL, at text NOT NULL)"
        )
        stored = _insert_for(connection, insert, together=together, seconds=seconds)
    server.drop_database(name)
    return stored


def _insert_for(connection: psycopg.Connection, insert: str, *, together: int, seconds: float) -> float:
    stored, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        rows = [_row(began, stored + number) for number in range(together)]
        connection.execute(insert.encode(), [list(column) for column in zip(*rows, strict=True)], prepare=True)
        stored += together
    return stored / (time.perf_counter() - began)


def _row(began: float, number: int) -> tuple[str, str, str, str, str]:
    return (f"evt_{began:.6f}_{number}", f"ws-{number % 1000:06}", _DATA, _ACTOR, "2026-01-01T00:00:00.000000Z")
