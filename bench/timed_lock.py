"""The product's command line with a watch on the append lock: how long each transaction keeps everybody else out.

Run as ``python -m bench.timed_lock FILE ARGS``, for ``orchestrator ARGS`` on PostgreSQL. A line of FILE is one
transaction: ``at held events``, when its commit was answered and how long after the lock was (nanoseconds of the
monotonic clock), and how many events it appended. Seen from the client both ends are one way later than at the server,
so their distance is the server's.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from bench.log_facts import percentile
from orchestrator.cli import main
from orchestrator.storage.postgres import PostgresEventStore
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.transaction import SqlTransaction

_TAKE, _FLUSH = PostgresEventStore._take_append_lock, SqlTransaction.flush
_COMMIT, _ROLLBACK = psycopg.Connection.commit, psycopg.Connection.rollback


class Watch(threading.local):
    """What a thread's transaction has come to. ``taken_ns`` is 0 where it does not hold the lock."""

    taken_ns: int = 0
    events: int = 0


def watch(path: Path) -> None:
    """Note every transaction of this process from now on."""
    file, seen = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), Watch()

    def take(store: PostgresEventStore, sql: Statements) -> None:
        _TAKE(store, sql)
        seen.taken_ns, seen.events = time.monotonic_ns(), 0

    def flush(transaction: SqlTransaction) -> None:
        seen.events = len(transaction.appended)
        _FLUSH(transaction)

    def commit(connection: psycopg.Connection[Any]) -> None:
        taken_ns, seen.taken_ns = seen.taken_ns, 0
        _COMMIT(connection)
        if taken_ns:
            now_ns = time.monotonic_ns()
            os.write(file, f"{now_ns} {now_ns - taken_ns} {seen.events}\n".encode())

    def rollback(connection: psycopg.Connection[Any]) -> None:
        seen.taken_ns = 0
        _ROLLBACK(connection)

    PostgresEventStore._take_append_lock = take  # type: ignore[assignment, method-assign]
    SqlTransaction.flush = flush  # type: ignore[assignment, method-assign]
    psycopg.Connection.commit = commit  # type: ignore[assignment, method-assign]
    psycopg.Connection.rollback = rollback  # type: ignore[assignment, method-assign]


@dataclass(frozen=True, kw_only=True)
class Held:
    """How long the lock was held by ``transactions`` that appended a group each. ``busy`` is the share of all time."""

    transactions: int
    events_p50: float
    p50_us: float
    p99_us: float
    busy: float


def held_between(path: Path, began_ns: int, ended_ns: int, *, events: range) -> Held:
    """Return what was noted in a time, of groups of so many events. Raises ``ValueError`` where there is none."""
    lines = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    within = [(held_ns / 1000, count) for at_ns, held_ns, count in lines if began_ns <= at_ns <= ended_ns]
    found = [(held_us, count) for held_us, count in within if count in events]
    if not found:
        raise ValueError(f"none of {len(within)} transactions appended {events.start} to {events.stop - 1} events")
    held_us: Sequence[float] = [us for us, _ in found]
    return Held(
        transactions=len(found),
        events_p50=median(count for _, count in found),
        p50_us=percentile(held_us, 0.5),
        p99_us=percentile(held_us, 0.99),
        busy=sum(us for us, _ in within) * 1000 / (ended_ns - began_ns),
    )


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.argv = ["orchestrator", *sys.argv[2:]]
    sys.exit(main())
