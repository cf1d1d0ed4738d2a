"""How far open windows follow the policy layers that were changed: read for whoever goes on, and noted by him."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.domain.state import Phase
from orchestrator.ports.recomputation import Recomputation
from orchestrator.storage.sql.index_ranges import limit_of, merged
from orchestrator.storage.sql.schema import policies, workspaces
from orchestrator.storage.sql.statements import Statements

IS_BEHIND = policies.c.recomputed_to.is_not(None)


def unfinished(sql: Statements) -> list[Recomputation]:
    """Return the layers that not all open windows follow, the one that was changed first first."""
    wanted = sa.select(policies.c.scope, policies.c.version, policies.c.recomputed_to).where(IS_BEHIND)
    return [
        Recomputation(scope=row.scope, version=row.version, to=row.recomputed_to)
        for row in sql.run(wanted.order_by(policies.c.version))
    ]


def open_windows(sql: Statements, fleet: str | None, after: str, limit: int) -> list[str]:
    """Return a page of the workspaces whose window is due some time, by id."""
    is_open = (workspaces.c.due_at.is_not(None), workspaces.c.id > after)
    if fleet is None:
        wanted = sa.select(workspaces.c.id).where(*is_open)
    else:  # the index over fleets holds their workspaces phase by phase
        ranges = [
            sa.select(workspaces.c.id)
            .where(workspaces.c.fleet == fleet, workspaces.c.phase == phase.value, *is_open)
            .order_by(workspaces.c.id)
            .limit(limit_of(limit))
            for phase in Phase
        ]
        wanted = sa.select(merged(ranges).c.id.label("id"))
    return list(sql.run(wanted.order_by("id").limit(limit)).scalars())


def note(sql: Statements, done: Recomputation, to: str | None) -> None:
    """Note that windows follow a layer up to ``to``, where ``done`` still is how far they did."""
    as_it_was = (policies.c.version == done.version) & (policies.c.recomputed_to == done.to)
    sql.run(sa.update(policies).where(policies.c.scope == done.scope, as_it_was).values(recomputed_to=to))
