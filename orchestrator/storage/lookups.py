"""The reads that transactions and readers share."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.domain.policy import Policies
from orchestrator.domain.restart_record import RestartRecord
from orchestrator.storage import rows
from orchestrator.storage.schema import policies as policies_table
from orchestrator.storage.schema import restarts
from orchestrator.storage.statements import Statements


def policies(sql: Statements) -> Policies:
    """Return the stored policy layers."""
    layers = [rows.policy_layer_of(row) for row in sql.run(sa.select(policies_table)).mappings()]
    return Policies(layers={layer.scope: layer for layer in layers})


def restart(sql: Statements, restart_id: str) -> RestartRecord | None:
    """Return a restart by its id."""
    row = sql.run(sa.select(restarts).where(restarts.c.id == restart_id)).mappings().one_or_none()
    return None if row is None else rows.restart_record_of(row)
