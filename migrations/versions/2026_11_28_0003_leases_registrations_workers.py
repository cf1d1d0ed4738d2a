"""Tables for what a write need not store again: leases, registrations; and who is there to carry a restart out.

``workspaces.folded_state`` is the place of a state in its new shape. This revision's code reads both shapes and writes
the old one, into ``state``, so that the version before goes on beside it; the next revision's writes the new one.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")


def where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("folded_state", sa.Text))
    op.create_table(
        "leases",
        sa.Column("workspace", ID, nullable=False),
        sa.Column("fleet", sa.Text, nullable=False),
        sa.Column("cycle", ID, nullable=False),
        sa.Column("fence", NUMBER, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_until", "leases", ["until"])
    op.create_index("ix_leases_worker", "leases", ["worker"])
    op.create_table(
        "registrations",
        sa.Column("workspace", ID, nullable=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("fleet", sa.Text, nullable=False),
        sa.Column("executor", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_registrations")),
    )
    op.create_index("ix_registrations_executor_pool", "registrations", ["executor", "pool", "workspace"])
    op.create_table(
        "workers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("executors", sa.Text, nullable=False),
        sa.Column("pools", sa.Text, nullable=False),
        sa.Column("slots", NUMBER, nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "executors_away",
        sa.Column("executor", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("executor", "pool", name=op.f("pk_executors_away")),
    )


def downgrade() -> None:
    for table in ("executors_away", "workers", "registrations", "leases"):
        op.drop_table(table)
    op.drop_column("workspaces", "folded_state")
