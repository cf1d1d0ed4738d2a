"""The reads that transactions and readers share."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.domain.policy import Policies
from orchestrator.domain.restart_record import RestartRecord
from orchestrator.storage import rows
from orchestrator.storage.schema import Instant, restarts
from orchestrator.storage.schema import policies as policies_table
from orchestrator.storage.statements import Statements

RESTART_COLUMNS = [
    sa.type_coerce(restarts.c[name], sa.types.NullType())
    if isinstance(restarts.c[name].type, Instant)
    else restarts.c[name]
    for name in rows.RECORD_FIELDS
]
"""Instants as the driver gives them: decoding the record as a whole is several times faster than column by column."""


def policies(sql: Statements) -> Policies:
    """Return the stored policy layers."""
    layers = [rows.policy_layer_of(row) for row in sql.run(sa.select(policies_table)).mappings()]
    return Policies(layers={layer.scope: layer for layer in layers})


def restart(sql: Statements, restart_id: str) -> RestartRecord | None:
    """Return a restart by its id."""
    row = sql.run(sa.select(*RESTART_COLUMNS).where(restarts.c.id == restart_id)).one_or_none()
    return None if row is None else rows.restart_record_of(row)
