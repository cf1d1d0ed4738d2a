"""The keys of callers. And sums over the log by periods, and of what waits, kept behind it by a chore.

The sums begin empty. The chore of a worker of this version fills them, in pieces, from the log's beginning.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.without_stopping import create_index

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")
OF_PERIOD = {"kind": ID, "name": ID, "period_s": NUMBER, "since": INSTANT}

KEYS: dict[str, dict[str, Any]] = {
    "summed_workspaces": {"workspace": ID},
    "backlog_sums": {"fleet": ID, "phase": ID},
    "activity_sums": {"kind": ID, "name": ID, "since": INSTANT},
    "restart_sums": {**OF_PERIOD, "state": ID, "cause": ID},
    "failure_sums": {**OF_PERIOD, "type": ID, "error": ID},
}
"""Each table with the columns of its primary key."""

REST: dict[str, dict[str, Any]] = {
    "summed_workspaces": {"fleet": sa.Text(), "phase": sa.Text(), "pending_writes": NUMBER, "waiting": NUMBER},
    "backlog_sums": {"workspaces": NUMBER, "pending_writes": NUMBER, "waiting": NUMBER},
    "activity_sums": {"writes": NUMBER, "restarts": NUMBER, "cycles_failed": NUMBER},
    "restart_sums": dict.fromkeys(("restarts", "started", "shadow", "writes", "cycles"), NUMBER),
    "failure_sums": {"failures": NUMBER},
}

_GRANT = """
DO $$
DECLARE
    named text;
    verb text;
BEGIN
    FOR named, verb IN
        SELECT DISTINCT grantee, privilege_type FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'file_counts'
            AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE') AND grantee NOT IN (current_user, 'PUBLIC')
    LOOP
        EXECUTE format('GRANT %s ON {tables} TO %I', verb, named);
    END LOOP;
END
$$
"""
"""Whoever counts files keeps these sums too, also where this upgrade is not told the app's role."""


_GRANT_KEYS = """
DO $$
DECLARE
    named text;
BEGIN
    FOR named IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'file_counts' AND privilege_type = 'INSERT'
            AND grantee NOT IN (current_user, 'PUBLIC')
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON access_keys TO %I', named);
    END LOOP;
END
$$
"""
"""The app admits callers by their keys, also where this upgrade is not told its role."""


def upgrade() -> None:
    """Nothing that is there is touched."""
    _create_sums()
    _create_keys()


def _create_sums() -> None:
    for table, keys in KEYS.items():
        columns = {**keys, **REST[table]}
        op.create_table(
            table,
            *(sa.Column(name, kind, nullable=False) for name, kind in columns.items()),
            sa.PrimaryKeyConstraint(*keys, name=op.f(f"pk_{table}")),
            if_not_exists=True,
        )
    if op.get_context().dialect.name == "postgresql":
        op.execute(_GRANT.format(tables=", ".join(KEYS)))
    create_index("ix_activity_sums_kind_since_name", "activity_sums", ["kind", "since", "name"])


def _create_keys() -> None:
    op.create_table(
        "access_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", ID, nullable=False),
        sa.Column("digest", ID, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("revoked_at", INSTANT),
        sa.Column("last_used_at", INSTANT),
        sa.Column("writes_per_minute", NUMBER),
        sa.Column("reads_per_minute", NUMBER),
        sa.Column("writes_used_until", INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_access_keys_digest")),
        if_not_exists=True,
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(_GRANT_KEYS)


def downgrade() -> None:
    """Keys open nothing any more. The position goes with the sums: a later upgrade begins anew."""
    op.drop_table("access_keys")
    op.execute("DELETE FROM counters WHERE name = 'sums'")
    for table in KEYS:
        op.drop_table(table)
