"""Pages of workspaces by id: at most three statements, each over ranges of an index, whatever the filters.

Ids first, then their rows. A phase, and a fleet's phase, is a range of an index; without a phase the ranges of all
wanted ones are merged, so that ten thousand removed workspaces are not read through to find the next one that is there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from orchestrator.domain.state import Phase
from orchestrator.ports.workspaces import StoredWorkspace, WorkspaceFilter
from orchestrator.storage.sql.index_ranges import limit_of, merged
from orchestrator.storage.sql.presence import IS_AWAY
from orchestrator.storage.sql.schema import executors_away, registrations, workspace_labels, workspaces
from orchestrator.storage.sql.statements import ONE, Statements
from orchestrator.storage.sql.workspace_rows import to_read, workspace_of

FEW = 128
"""So many workspaces of a phase or fleet are asked for their label before those with the label are gone through."""

_WAITING = (Phase.QUEUED, Phase.RETRYING)


def workspace_page(sql: Statements, wanted: WorkspaceFilter) -> list[StoredWorkspace]:
    """Return a page of workspaces."""
    found = _ids(sql, wanted)
    if not found:
        return []
    rows = sql.run(to_read.where(workspaces.c.id.in_(found)).order_by(workspaces.c.id)).mappings()
    return [workspace_of(row) for row in rows]


def _ids(sql: Statements, wanted: WorkspaceFilter) -> Sequence[str]:
    if wanted.label is None:
        return list(sql.run(_first(wanted, wanted.limit)).scalars())[: wanted.limit]
    if wanted.phase is not None or wanted.fleet is not None:
        first = _first(wanted, FEW).subquery()
        looked_at = sql.run(sa.select(first.c.id, _has_label(first.c.id, *wanted.label)).order_by(first.c.id)).all()
        found = [row[0] for row in looked_at if row[1]]
        if len(looked_at) < FEW or len(found) >= wanted.limit:
            return found[: wanted.limit]
    return list(sql.run(_labelled(wanted, *wanted.label)).scalars())


def _phases(wanted: WorkspaceFilter) -> Collection[Phase]:
    """Return the phases as rows have them of which one is wanted."""
    if wanted.phase is Phase.UNCLAIMABLE:
        return _WAITING
    if wanted.phase is not None:
        return (wanted.phase,)
    return [phase for phase in Phase if wanted.removed or phase is not Phase.REMOVED]


def _first(wanted: WorkspaceFilter, most: int) -> sa.Select[tuple[str]]:
    """Return the statement for the first ``most`` ids, or a few more, whatever their labels."""
    limit = limit_of(most)
    ranges = [
        sa.select(workspaces.c.id)
        .where(workspaces.c.phase == phase.value, *_conditions(wanted, phase))
        .order_by(workspaces.c.id)
        .limit(limit)
        for phase in _phases(wanted)
    ]
    every = merged(ranges)
    return sa.select(every.c.id).order_by(every.c.id).limit(limit)


def _conditions(wanted: WorkspaceFilter, phase: Phase) -> list[sa.ColumnElement[bool]]:
    conditions = [workspaces.c.id > wanted.after]
    if wanted.fleet is not None:
        conditions.append(workspaces.c.fleet == wanted.fleet)
    if wanted.phase is not None and phase in _WAITING:
        conditions.append(_is_away() if wanted.phase is Phase.UNCLAIMABLE else sa.not_(_is_away()))
    return conditions


def _labelled(wanted: WorkspaceFilter, key: str, value: str) -> sa.Select[tuple[str]]:
    """Return the statement for the ids along the index of labels."""
    has = (workspace_labels.c.key == key, workspace_labels.c.value == value)
    either = sa.or_(
        *(sa.and_(workspaces.c.phase == phase.value, *_conditions(wanted, phase)) for phase in _phases(wanted))
    )
    joined = workspace_labels.join(workspaces, workspaces.c.id == workspace_labels.c.workspace)
    page = sa.select(workspace_labels.c.workspace).select_from(joined).where(*has, either)
    page = page.where(workspace_labels.c.workspace > wanted.after)
    return page.order_by(workspace_labels.c.workspace).limit(wanted.limit)


def _has_label(workspace: sa.ColumnElement[str], key: str, value: str) -> sa.ColumnElement[bool]:
    found = sa.select(workspace_labels.c.workspace).where(workspace_labels.c.workspace == workspace)
    found = found.where(workspace_labels.c.key == key, workspace_labels.c.value == value).limit(ONE)
    return found.scalar_subquery().is_not(None)


def _is_away() -> sa.ColumnElement[bool]:
    """Say whether nobody serves what the workspace's restart waits for: a probe each, not a join of all there are."""
    joined = registrations.join(executors_away, IS_AWAY)
    found = sa.select(executors_away.c.since).select_from(joined).where(registrations.c.workspace == workspaces.c.id)
    return found.limit(ONE).correlate(workspaces).scalar_subquery().is_not(None)
