"""Which ready workspaces may start as far as caps go: asked in the statement that lists them.

A hint: whether one starts is decided under the append lock (``domain.decide.may_start``). But a good one, or each bell
and each tick tries again what cannot start (measured: 40 full fleets burnt a core).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from orchestrator.domain.policy import DEFAULT_SCOPE, SETTINGS_SCOPE, fleet_scope
from orchestrator.storage.sql.schema import leases, policies, registrations, workspaces
from orchestrator.storage.sql.statements import as_json

_CAP = "max_concurrent"


def has_room(dialect: str, running_most: int | None) -> sa.ColumnElement[bool]:
    """Say whether a workspace's fleet has room for one more cycle, by the policy in force for it.

    ``running_most`` bounds all fleets together. Of a state of the older shape nothing is known but that it is ready.
    """
    running = _running()
    cycles = sa.select(running.c.cycles).where(running.c.fleet == workspaces.c.fleet).scalar_subquery()
    own = registrations.c.workspace == workspaces.c.id
    sets_its_own = sa.select(registrations.c.policy.contains(f'"{_CAP}":', autoescape=True)).where(own)
    own_cap = sa.select(_cap(registrations.c.policy, dialect)).where(own).scalar_subquery()
    full = sa.select(running.c.fleet).where(running.c.cycles >= _cap_of_fleet(running.c.fleet, dialect))
    room = sa.or_(
        workspaces.c.fleet.not_in(sa.select(running.c.fleet)),  # a cap is at least 1
        workspaces.c.folded_state.is_(None),
        sa.case((sets_its_own.scalar_subquery(), cycles < own_cap), else_=workspaces.c.fleet.not_in(full)),
    )
    if running_most is None:
        return room
    in_all = sa.select(sa.func.coalesce(sa.func.sum(running.c.cycles), 0)).scalar_subquery()
    return sa.and_(room, in_all < running_most)


def _running() -> sa.CTE:
    """Return how many cycles are open in each fleet in which one is, wherever their leases lie."""
    in_rows = sa.select(workspaces.c.fleet).where(workspaces.c.lease_until.is_not(None))
    open_ones = sa.union_all(in_rows, sa.select(leases.c.fleet)).subquery()
    counted = sa.select(open_ones.c.fleet, sa.func.count().label("cycles")).group_by(open_ones.c.fleet)
    return counted.cte("running")


def _cap_of_fleet(fleet: sa.ColumnElement[str], dialect: str) -> sa.ColumnElement[Any]:
    """Return the fleet's cap: of the nearest layer that says one; NULL if none does."""
    scopes = (sa.literal(fleet_scope("")) + fleet, sa.literal(DEFAULT_SCOPE), sa.literal(SETTINGS_SCOPE))
    said = _cap(policies.c.policy, dialect)
    return sa.func.coalesce(*(sa.select(said).where(policies.c.scope == scope).scalar_subquery() for scope in scopes))


def _cap(policy: sa.ColumnElement[str], dialect: str) -> sa.ColumnElement[Any]:
    cap: sa.ColumnElement[Any] = as_json(policy, dialect)[_CAP].as_integer()
    return cap
