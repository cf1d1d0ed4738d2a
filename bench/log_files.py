"""The generated log in a SQLite file: made once and kept in ``.bench/``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from bench.virtual_fleet import VirtualFleet
from bench.virtual_log import VirtualLog
from bench.virtual_people import VirtualPeople
from orchestrator.domain.encoding import format_instant
from orchestrator.history.file_counting import count_files
from orchestrator.history.sum_keeping import keep_sums
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql.rows import Row
from orchestrator.storage.sql.schema import (
    KEPT_SUMS,
    counters,
    events,
    file_counts,
    leases,
    policies,
    registrations,
    restarts,
    workspace_snapshots,
    workspaces,
)

VERSION = 9
"""Raise it when the generator or the schema changes: databases kept under another version are made anew."""

GENERATED = (events, workspaces, registrations, leases, restarts, policies, workspace_snapshots)
TABLES = (*GENERATED, file_counts, *KEPT_SUMS, counters)
_SEED = 20261123
_TOGETHER = 5_000
_WORKSPACES_MOST = 1_000
_EVENTS_EACH = 300


class SqliteLog:
    """A sink that fills a migrated SQLite file, in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, list[tuple[Any, ...]]] = {table.name: [] for table in GENERATED}
        self._names = {table.name: tuple(column.name for column in table.columns) for table in GENERATED}

    def event(self, position: int, row: Row) -> None:
        """Take the columns of an event."""
        self.row(events, {"position": position, **row})

    def snapshot(self, row: Row) -> None:
        """Take the columns of a snapshot."""
        self.row(workspace_snapshots, row)

    def row(self, table: sa.Table, row: Row) -> None:
        """Take the columns of any row; a thousand at a time reach the file."""
        waiting = self._waiting[table.name]
        waiting.append(tuple(_bound(row[name]) for name in self._names[table.name]))
        if len(waiting) >= _TOGETHER:
            self._flush(table.name)

    def flush(self) -> None:
        """Write what waits."""
        for table in GENERATED:
            self._flush(table.name)

    def _flush(self, table: str) -> None:
        names, waiting = self._names[table], self._waiting[table]
        marks = ", ".join("?" * len(names))
        listed = ", ".join(f'"{name}"' for name in names)
        self._connection.executemany(f"INSERT INTO {table} ({listed}) VALUES ({marks})", waiting)
        waiting.clear()


def _bound(value: Any) -> Any:
    return format_instant(value) if isinstance(value, datetime) else value


def generate(path: Path, count: int) -> int:
    """Fill a migrated SQLite file with a log of ``count`` events, and return how many there are.

    It may be up to a hundred more: a transaction is whole.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        sink = SqliteLog(connection)
        log = VirtualLog(sink, _SEED)
        fleet = VirtualFleet(log, Random(_SEED + 2))
        workspaces_wanted = min(_WORKSPACES_MOST, 10 + count // _EVENTS_EACH)
        VirtualPeople(fleet, log, Random(_SEED + 3)).arrive(workspaces_wanted)
        fleet.run(count)
        for table, stored in (
            (workspaces, log.stored_workspaces()),
            (registrations, log.stored_registrations()),
            (leases, log.stored_leases()),
            (restarts, log.stored_restarts()),
            (policies, log.stored_policies()),
        ):
            for row in stored:
                sink.row(table, row)
        sink.flush()
        connection.execute("COMMIT")
    return log.count


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which log, where it is kept, and whom to tell of work that takes a while. ``fresh``: make it anew."""

    count: int
    folder: Path
    fresh: bool
    say: Callable[[str], None]

    @property
    def name(self) -> str:
        """Return the beginning of the names of its files."""
        return f"audit-v{VERSION}-{self.count}"


def sqlite_file(wanted: Wanted) -> Path:
    """Return the kept SQLite file; make it first where there is none."""
    kept = wanted.folder / f"{wanted.name}.db"
    if kept.exists() and not wanted.fresh:
        return kept
    wanted.folder.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=wanted.folder) as folder:
        path = Path(folder) / kept.name
        wanted.say(f"making a log of {wanted.count:,} events: {kept}")
        url = f"sqlite:///{path}"
        upgrade(url)
        generate(path, wanted.count)
        with closing(open_store(url)) as store:
            count_files(store)
            keep_sums(store)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("ANALYZE")
        path.rename(kept)
    return kept
