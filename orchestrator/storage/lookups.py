"""The reads that transactions and readers share."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from orchestrator.domain.policy import Policies
from orchestrator.domain.restart_record import RestartRecord
from orchestrator.domain.snapshot import Snapshot
from orchestrator.storage import rows
from orchestrator.storage.schema import policies as policies_table
from orchestrator.storage.schema import restarts, workspace_snapshots, workspaces
from orchestrator.storage.statements import Statements


def policies(sql: Statements) -> Policies:
    """Return the stored policy layers."""
    layers = [rows.policy_layer_of(row) for row in sql.run(sa.select(policies_table)).mappings()]
    return Policies(layers={layer.scope: layer for layer in layers})


def restart(sql: Statements, restart_id: str) -> RestartRecord | None:
    """Return a restart by its id."""
    row = sql.run(sa.select(restarts).where(restarts.c.id == restart_id)).mappings().one_or_none()
    return None if row is None else rows.restart_record_of(row)


def snapshots(sql: Statements, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
    """Return each workspace's newest snapshot at or before that position: two index probes a workspace."""
    earlier = workspace_snapshots.alias()
    newest = (
        sa.select(sa.func.max(earlier.c.position))
        .where(earlier.c.workspace == workspaces.c.id, earlier.c.position <= to_position)
        .correlate(workspaces)
        .scalar_subquery()
    )
    mine = (workspace_snapshots.c.workspace == workspaces.c.id) & (workspace_snapshots.c.position == newest)
    found = sa.select(workspace_snapshots).select_from(workspaces.join(workspace_snapshots, mine))
    result = sql.run(found.where(workspaces.c.id.in_(sorted(of)))).mappings()
    return {row["workspace"]: rows.snapshot_of(row) for row in result}


def snapshots_between(sql: Statements, first: int, last: int) -> list[Snapshot]:
    """Return all snapshots of these positions, both ends included, in their order."""
    position = workspace_snapshots.c.position
    found = sa.select(workspace_snapshots).where(position.between(first, last)).order_by(position)
    return [rows.snapshot_of(row) for row in sql.run(found).mappings()]
