"""How a migration changes a PostgreSQL database that is written to meanwhile: no writer waits for it.

An index is built concurrently, outside of any transaction. What takes a lock that writers want takes it for an instant
or not at all: ``LOCK_TIMEOUT_MS`` bounds how long they queue behind it, and ``orchestrator migrate`` tries again. So
every migration must be one that may be begun anew, after an index that was built and before what failed.

A new database, SQLite (where whoever migrates is the only writer) and Alembic's own command take one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import exc

WRITERS_GO_ON = "writers_go_on"
"""Alembic's option that says so: set in ``env``."""

LOCK_TIMEOUT_MS = 20
"""A lock that is asked for holds up all who come after it, so it is not waited for any longer."""

_BUILD_WAITS_S = 600
"""A concurrent build holds nobody up, and waits for the transactions that began before it."""

_LOCK_TAKEN = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
_TRIES = 200
_PAUSE_S = 0.05
_IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")

Step = Callable[[sa.Connection, str], str | None]


def writers_go_on() -> bool:
    """Return whether others may be writing while the migration runs."""
    return bool(op.get_context().opts.get(WRITERS_GO_ON))


def create_index(name: str, table: str, columns: Sequence[str | sa.TextClause], where: str | None = None) -> None:
    """Create an index; where writers go on, all that was changed before is committed, and it may be there already.

    One that an interrupted build left behind is built anew.
    """
    condition = None if where is None else sa.text(where)
    given: dict[str, Any] = {"postgresql_where": condition, "sqlite_where": condition}
    if not writers_go_on():
        op.create_index(name, table, list(columns), **given)
        return
    valid = op.get_bind().execute(_IS_VALID, {"name": name}).scalar_one_or_none()
    if valid:
        return
    if valid is not None:
        drop_index(name, table)
    with op.get_context().autocommit_block():
        _wait_for_locks(_BUILD_WAITS_S * 1_000)
        op.create_index(name, table, list(columns), postgresql_concurrently=True, **given)
        _wait_for_locks(LOCK_TIMEOUT_MS)


def drop_index(name: str, table: str) -> None:
    """Drop an index, if it is there; where writers go on, all that was changed before is committed."""
    if not writers_go_on():
        op.drop_index(name, table, if_exists=True)
        return
    with op.get_context().autocommit_block():
        _wait_for_locks(_BUILD_WAITS_S * 1_000)
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        _wait_for_locks(LOCK_TIMEOUT_MS)


def in_pages(step: Step) -> None:
    """Carry a step out again and again, each time from where it ended; it is given the empty text first, None ends it.

    Where writers go on each is a transaction of its own, carried out again where a lock of it was taken.
    """
    if not writers_go_on():
        _to_the_end(step, op.get_bind())
        return
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        _to_the_end(lambda _, after: _one_page(connection, step, after), connection)


def _to_the_end(step: Step, connection: sa.Connection) -> None:
    after: str | None = ""
    while after is not None:
        after = step(connection, after)


def _one_page(connection: sa.Connection, step: Step, after: str) -> str | None:
    for tried in range(_TRIES):
        connection.exec_driver_sql("BEGIN")
        try:
            reached = step(connection, after)
            connection.exec_driver_sql("COMMIT")
        except exc.DBAPIError as error:
            connection.exec_driver_sql("ROLLBACK")
            if not is_lock_taken(error) or tried == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S)
        else:
            return reached
    raise AssertionError("the last try returns or raises")


def is_lock_taken(error: exc.DBAPIError) -> bool:
    """Return whether the database gave up a statement that waited for somebody's lock."""
    return getattr(error.orig, "sqlstate", None) in _LOCK_TAKEN


def _wait_for_locks(most_ms: int) -> None:
    op.execute(f"SET lock_timeout = {most_ms}")
