"""Counting the distinct paths of the writes that wait: for many workspaces in one statement, before the append lock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from orchestrator.domain.encoding import format_instant
from orchestrator.domain.policy import Action
from orchestrator.storage.sql.column_types import NUMBER, Instant
from orchestrator.storage.sql.schema import IS_WRITE, events
from orchestrator.storage.sql.statements import ONE, Statements, as_json

_TIMESTAMP = sa.TIMESTAMP(timezone=True)


@dataclass(frozen=True)
class Range:
    """Positions of a workspace's log, both ends included, of which nothing before ``since`` counts (None: all do).

    What is only recorded is never covered, so a range may begin with any number of such writes. ``since`` lets the
    count begin behind those: positions and instants rise together.
    """

    workspace: str
    first: int
    last: int
    since: datetime | None


def count_paths(sql: Statements, ranges: Sequence[Range]) -> dict[Range, int]:
    """Count the distinct paths of each range's writes whose action is not ``record``."""
    if not ranges:
        return {}
    found = sql.run(_counting(sql.dialect), _named(ranges, sql.dialect))
    counted = {row[0]: row[1] for row in found}
    return {one: counted[number] for number, one in enumerate(ranges)}


def paths_of(sql: Statements, wanted: Range) -> list[str]:
    """Return the distinct paths that ``count_paths`` counts."""
    first = sa.func.max if sql.dialect == "sqlite" else sa.func.greatest
    begins = first(sa.literal(wanted.first, NUMBER), 1 + last_before(sa.literal(wanted.since, Instant())))
    paths = sa.select(events.c.subject).distinct().where(*counted(sql.dialect))
    held = (events.c.workspace == wanted.workspace, events.c.position.between(begins, wanted.last))
    return list(sql.run(paths.where(*held)).scalars())


def counted(dialect: str) -> tuple[Any, ...]:
    """Return the conditions that an event is a write that asks for something."""
    return IS_WRITE, as_json(events.c.data, dialect)["action"].as_string() != Action.RECORD.value


def last_before(since: sa.ColumnElement[Any], *given: sa.TableValuedAlias) -> sa.ColumnElement[int]:
    """Return the position of an event before an instant, at most one transaction's events before the last such one.

    ``given``: the table of which ``since`` is a column, if it is one.
    """
    earlier = events.alias("earlier")
    newest = sa.select(earlier.c.position).where(earlier.c.recorded_at < since).correlate(*given)
    return sa.func.coalesce(newest.order_by(earlier.c.recorded_at.desc()).limit(ONE).scalar_subquery(), 0)


@cache
def _counting(dialect: str) -> sa.Executable:
    return _in_sqlite() if dialect == "sqlite" else _in_postgres()


def _in_sqlite() -> sa.Executable:
    """Return the statement: the ranges come along as one JSON value."""
    given = sa.func.json_each(sa.bindparam("ranges")).table_valued("key", "value")
    workspace, first, last, since = (sa.func.json_extract(given.c.value, f"$[{at}]") for at in range(4))
    counted = _count(workspace, sa.func.max(first, 1 + last_before(since, given)), last, "sqlite")
    return sa.select(given.c.key, counted.correlate(given).scalar_subquery())


def _in_postgres() -> sa.Executable:
    """Return the statement: the ranges come along as an array a column."""
    types: dict[str, sa.types.TypeEngine[Any]] = {
        "named": sa.Text(),
        "first": NUMBER,
        "last": NUMBER,
        "since": _TIMESTAMP,
    }
    arrays: list[sa.ColumnElement[Any]] = [sa.bindparam(name, type_=postgresql.ARRAY(of)) for name, of in types.items()]
    given = sa.func.unnest(*arrays).table_valued(*types, with_ordinality="number").render_derived()
    begins = sa.func.greatest(given.c.first, 1 + last_before(given.c.since, given))
    counted = _count(given.c.named, begins, given.c.last, "postgresql")
    return sa.select(given.c.number - 1, counted.correlate(given).scalar_subquery())


def _count(
    workspace: sa.ColumnElement[Any], begins: sa.ColumnElement[Any], last: sa.ColumnElement[Any], dialect: str
) -> sa.Select[int]:
    held = (events.c.workspace == workspace, events.c.position >= begins, events.c.position <= last)
    return sa.select(sa.func.count(events.c.subject.distinct())).where(*held, *counted(dialect))


def _named(ranges: Sequence[Range], dialect: str) -> dict[str, Any]:
    if dialect == "sqlite":
        rows = [
            (one.workspace, one.first, one.last, None if one.since is None else format_instant(one.since))
            for one in ranges
        ]
        return {"ranges": json.dumps(rows)}
    return {
        "named": [one.workspace for one in ranges],
        "first": [one.first for one in ranges],
        "last": [one.last for one in ranges],
        "since": [one.since for one in ranges],
    }
