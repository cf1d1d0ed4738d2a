"""The reads that transactions and readers share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.storage.sql import rows
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.prepared import Prepared, one_of
from orchestrator.storage.sql.schema import events, restarts
from orchestrator.storage.sql.statements import ONE, Statements

HOLDING = (RestartState.SUCCEEDED, RestartState.QUEUED, RestartState.RUNNING, RestartState.RETRYING)
"""States of a restart that answers for its range: of those, the ranges of a workspace never overlap (S6)."""

_COLUMNS = [
    sa.type_coerce(restarts.c[name], sa.types.NullType()).label(name)
    if isinstance(restarts.c[name].type, Instant)
    else restarts.c[name]
    for name in rows.PROJECTED_FIELDS
]
"""Instants as the driver gives them: decoding the record as a whole is several times faster than column by column."""
_ONE_TEXT = [sa.func.json_array(*_COLUMNS, type_=sa.types.NullType()).label("restart")]
_NAMED = Prepared(lambda dialect: sa.select(*restart_columns(dialect)).where(one_of(restarts.c.id, "names", dialect)))


def restart(sql: Statements, restart_id: str) -> RestartProjection | None:
    """Return a restart by its id."""
    return next(iter(restarts_named(sql, [restart_id])), None)


def restarts_named(sql: Statements, ids: Sequence[str]) -> list[RestartProjection]:
    """Return the restarts that there are of these ids. Raises ``Unreadable``."""
    return [restart_of(sql, list(row.values())) for row in sql.ask(_NAMED, names=ids)]


def restart_projections(sql: Statements, chosen: sa.Select[*tuple[Any, ...]]) -> list[RestartProjection]:
    """Return the restarts that a selection names, in its order. Raises ``Unreadable``."""
    return [restart_of(sql, row) for row in sql.fetch(chosen.with_only_columns(*restart_columns(sql.dialect)))]


def restart_columns(dialect: str) -> Sequence[sa.ColumnElement[Any]]:
    """Return what ``restart_of`` makes a restart of.

    SQLite gives one JSON text: it makes that of 30 columns in two thirds of the time that its driver takes to hand
    them over one by one (measured: 22 instead of 37 us for ten rows).
    """
    return _ONE_TEXT if dialect == "sqlite" else _COLUMNS


def restart_of(sql: Statements, row: Sequence[Any]) -> RestartProjection:
    """Return the restart of a row of ``restart_columns``, as the driver made it. Raises ``Unreadable``."""
    return rows.restart_projection_of_text(row[0]) if sql.dialect == "sqlite" else rows.restart_projection_of(row)


def first_holding(
    among: sa.FromClause, workspace: sa.ColumnElement[Any] | str, position: sa.ColumnElement[int] | int
) -> sa.Select[*tuple[Any, ...]]:
    """Return the only restart that may answer for a position of a workspace: it does if its range begins by then.

    The ranges of those that answer tile: the first one that ends at or after the position holds it, or none does.
    """
    ends_later = sa.and_(among.c.workspace == workspace, among.c.to_position >= position)
    answers = among.c.state.in_([state.value for state in HOLDING])
    return sa.select(among).where(ends_later, answers).order_by(among.c.to_position).limit(ONE)


def restarts_holding(sql: Statements, positions: Collection[int]) -> dict[int, RestartProjection]:
    """Return the restarts that answer for these events, by position: a few index probes each, in one statement."""
    candidate = first_holding(restarts.alias(), events.c.workspace, events.c.position).correlate(events)
    first = candidate.with_only_columns(candidate.selected_columns.id).scalar_subquery()
    holds = sa.and_(restarts.c.id == first, restarts.c.from_position <= events.c.position)
    held = sa.select(events.c.position, *restart_columns(sql.dialect)).select_from(events.join(restarts, holds))
    found = sql.fetch(held.where(events.c.position.in_(sorted(positions))))
    return {position: restart_of(sql, row) for position, *row in found}
