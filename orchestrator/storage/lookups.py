"""The reads that transactions and readers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.policy import Policies
from orchestrator.domain.restart_record import RestartRecord
from orchestrator.storage import rows
from orchestrator.storage.schema import Instant, restarts
from orchestrator.storage.schema import policies as policies_table
from orchestrator.storage.statements import Statements

_COLUMNS = [
    sa.type_coerce(restarts.c[name], sa.types.NullType())
    if isinstance(restarts.c[name].type, Instant)
    else restarts.c[name]
    for name in rows.RECORD_FIELDS
]
"""Instants as the driver gives them: decoding the record as a whole is several times faster than column by column."""
_ONE_TEXT = [sa.func.json_array(*_COLUMNS, type_=sa.types.NullType())]


def policies(sql: Statements) -> Policies:
    """Return the stored policy layers."""
    layers = [rows.policy_layer_of(row) for row in sql.run(sa.select(policies_table)).mappings()]
    return Policies(layers={layer.scope: layer for layer in layers})


def restart(sql: Statements, restart_id: str) -> RestartRecord | None:
    """Return a restart by its id."""
    return next(iter(restart_records(sql, sa.select(restarts).where(restarts.c.id == restart_id))), None)


def restart_records(sql: Statements, chosen: sa.Select[*tuple[Any, ...]]) -> list[RestartRecord]:
    """Return the restarts that a selection names, in its order. Raises ``Unreadable``."""
    return [restart_of(sql, row) for row in sql.fetch(chosen.with_only_columns(*restart_columns(sql)))]


def restart_columns(sql: Statements) -> Sequence[sa.ColumnElement[Any]]:
    """Return what ``restart_of`` makes a restart of.

    SQLite gives one JSON text: it makes that of 30 columns in two thirds of the time that its driver takes to hand
    them over one by one (measured: 22 instead of 37 us for ten rows).
    """
    return _ONE_TEXT if sql.dialect == "sqlite" else _COLUMNS


def restart_of(sql: Statements, row: Sequence[Any]) -> RestartRecord:
    """Return the restart of a row of ``restart_columns``, as the driver made it. Raises ``Unreadable``."""
    return rows.restart_record_of_text(row[0]) if sql.dialect == "sqlite" else rows.restart_record_of(row)
