"""Pages of workspaces by id: at most three statements, each over ranges of an index, whatever the filters.

Ids first, then their rows. A phase, and a fleet's phase, is a range of an index; without a phase the ranges of all
wanted ones are merged, so that ten thousand removed workspaces are not read through to find the next one that is there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from orchestrator.domain.state import Phase
from orchestrator.ports.workspaces import StoredWorkspace, WorkspaceFilter
from orchestrator.storage.sql.column_types import ID
from orchestrator.storage.sql.index_ranges import limit_of, merged, rounded
from orchestrator.storage.sql.prepared import Prepared, one_of
from orchestrator.storage.sql.presence import IS_AWAY
from orchestrator.storage.sql.schema import executors_away, registrations, workspace_labels, workspaces
from orchestrator.storage.sql.statements import ONE, Statements
from orchestrator.storage.sql.workspace_rows import to_read, workspace_of

FEW = 128
"""So many workspaces of a phase or fleet are asked for their label before those with the label are gone through."""

Page = sa.Select[*tuple[Any, ...]]

_kept = lru_cache(maxsize=128)
"""Statements are kept: to build one of several ranges costs more than to run it."""

_AFTER = sa.bindparam("after", type_=ID)
_HAS = (workspace_labels.c.key == sa.bindparam("key"), workspace_labels.c.value == sa.bindparam("value"))
_WAITING = (Phase.QUEUED, Phase.RETRYING)
_ROWS = Prepared(lambda dialect: to_read.where(one_of(workspaces.c.id, "names", dialect)).order_by(workspaces.c.id))


def workspace_page(sql: Statements, wanted: WorkspaceFilter) -> list[StoredWorkspace]:
    """Return a page of workspaces."""
    found = _ids(sql, wanted)
    if not found:
        return []
    return [workspace_of(row) for row in sql.ask(_ROWS, names=found)]


def _ids(sql: Statements, wanted: WorkspaceFilter) -> Sequence[str]:
    if wanted.label is None:
        return [row[0] for row in sql.fetch(_first(_shape(wanted), wanted.limit), _values(wanted))][: wanted.limit]
    if wanted.phase is not None or wanted.fleet is not None:
        looked_at = sql.fetch(_looking_at_first(_shape(wanted)), _values(wanted))
        found = [row[0] for row in looked_at if row[1]]
        if len(looked_at) < FEW or len(found) >= wanted.limit:
            return found[: wanted.limit]
    return [row[0] for row in sql.fetch(_labelled(_shape(wanted)), _values(wanted))][: wanted.limit]


def _shape(wanted: WorkspaceFilter) -> WorkspaceFilter:
    """Return the filter with what its statement does not depend on left out: statements are kept by it."""
    fleet = None if wanted.fleet is None else ""
    return replace(wanted, fleet=fleet, label=None, after="", limit=rounded(wanted.limit))


def _values(wanted: WorkspaceFilter) -> dict[str, str]:
    key, value = wanted.label or ("", "")
    return {"after": wanted.after, "fleet": wanted.fleet or "", "key": key, "value": value}


def _phases(wanted: WorkspaceFilter) -> Collection[Phase]:
    """Return the phases as rows have them of which one is wanted."""
    if wanted.phase is Phase.UNCLAIMABLE:
        return _WAITING
    if wanted.phase is not None:
        return (wanted.phase,)
    return [phase for phase in Phase if wanted.removed or phase is not Phase.REMOVED]


@_kept
def _first(wanted: WorkspaceFilter, most: int) -> Page:
    """Return the statement for the first ``most`` ids, or a few more, whatever their labels."""
    limit = limit_of(most)
    ranges = [
        sa.select(workspaces.c.id).where(_is(phase), *_conditions(wanted, phase)).order_by(workspaces.c.id).limit(limit)
        for phase in _phases(wanted)
    ]
    every = merged(ranges)
    return sa.select(every.c.id).order_by(every.c.id).limit(limit)


def _conditions(wanted: WorkspaceFilter, phase: Phase) -> list[sa.ColumnElement[bool]]:
    conditions = [workspaces.c.id > _AFTER]
    if wanted.fleet is not None:
        conditions.append(workspaces.c.fleet == sa.bindparam("fleet"))
    if wanted.phase is not None and phase in _WAITING:
        conditions.append(_is_away() if wanted.phase is Phase.UNCLAIMABLE else sa.not_(_is_away()))
    return conditions


@_kept
def _looking_at_first(wanted: WorkspaceFilter) -> Page:
    """Return the statement for the first few ids, and whether each has the label."""
    first = _first(wanted, FEW).subquery()
    has = sa.select(workspace_labels.c.workspace).where(workspace_labels.c.workspace == first.c.id, *_HAS).limit(ONE)
    return sa.select(first.c.id, has.scalar_subquery().is_not(None)).order_by(first.c.id)


@_kept
def _labelled(wanted: WorkspaceFilter) -> Page:
    """Return the statement for the ids along the index of labels."""
    kinds = [sa.and_(_is(phase), *_conditions(wanted, phase)) for phase in _phases(wanted)]
    joined = workspace_labels.join(workspaces, workspaces.c.id == workspace_labels.c.workspace)
    page = sa.select(workspace_labels.c.workspace).select_from(joined).where(*_HAS, sa.or_(*kinds))
    page = page.where(workspace_labels.c.workspace > _AFTER)
    return page.order_by(workspace_labels.c.workspace).limit(limit_of(wanted.limit))


def _is(phase: Phase) -> sa.ColumnElement[bool]:
    return workspaces.c.phase == sa.literal_column(f"'{phase.value}'", sa.Text())


def _is_away() -> sa.ColumnElement[bool]:
    """Say whether nobody serves what the workspace's restart waits for: a probe each, not a join of all there are."""
    joined = registrations.join(executors_away, IS_AWAY)
    found = sa.select(executors_away.c.since).select_from(joined).where(registrations.c.workspace == workspaces.c.id)
    return found.limit(ONE).correlate(workspaces).scalar_subquery().is_not(None)
