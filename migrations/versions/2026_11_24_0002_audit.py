"""What the audit keeps beside the log: checkpoints and tiles of its tree, snapshots, file counts, verifications."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.without_stopping import create_index, drop_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")


def where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    """The new tables first: an index of ``events`` is built outside of their transaction."""
    create_tree()
    create_snapshots()
    create_file_counts()
    create_verifications()
    create_indexes()


def create_verifications() -> None:
    op.create_table(
        "verifications",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("violations", sa.Text, nullable=False),
        sa.Column("imbalance", NUMBER, nullable=False),
        sa.Column("verified_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_verifications")),
        if_not_exists=True,
    )


def downgrade() -> None:
    for table in ("verifications", "file_counts", "workspace_snapshots", "merkle_tiles", "checkpoints"):
        op.drop_table(table)
    # Or the counts of files would go on from where the dropped table had ended.
    op.execute("DELETE FROM counters WHERE name IN ('file_counts', 'seal_failures')")
    for name in ("ix_restarts_workspace_from_position", "ix_restarts_workspace_writes"):
        op.drop_index(name, "restarts")
    op.drop_index("ix_restarts_workspace_queued_position", "restarts")
    op.create_index("ix_restarts_workspace_queued_position", "restarts", ["workspace", "queued_position"])
    for name in ("ix_events_path", "ix_events_failure"):
        op.drop_index(name, "events")


def create_tree() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("tree_size", NUMBER, nullable=False, autoincrement=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("root", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("previous_size", NUMBER, nullable=False),
        sa.Column("consistency", sa.Text, nullable=False),
        sa.Column("sealed_at", INSTANT, nullable=False),
        sa.Column("exported_at", INSTANT),
        sa.PrimaryKeyConstraint("tree_size", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("previous_size", name=op.f("uq_checkpoints_previous_size")),
        if_not_exists=True,
    )
    op.create_index("ix_checkpoints_position", "checkpoints", ["position"], if_not_exists=True)
    op.create_index(
        "ix_checkpoints_unexported", "checkpoints", ["tree_size"], **where("exported_at IS NULL"), if_not_exists=True
    )
    op.create_table(
        "merkle_tiles",
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("tile", NUMBER, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("first_position", NUMBER),
        sa.Column("last_position", NUMBER),
        sa.PrimaryKeyConstraint("level", "tile", name=op.f("pk_merkle_tiles")),
        if_not_exists=True,
    )
    op.create_index(
        "ix_merkle_tiles_last_position", "merkle_tiles", ["last_position"], **where("level = 0"), if_not_exists=True
    )


def create_snapshots() -> None:
    op.create_table(
        "workspace_snapshots",
        sa.Column("workspace", ID, nullable=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "position", name=op.f("pk_workspace_snapshots")),
        if_not_exists=True,
    )
    op.create_index(
        "ix_workspace_snapshots_position", "workspace_snapshots", ["position"], unique=True, if_not_exists=True
    )


def create_file_counts() -> None:
    op.create_table(
        "file_counts",
        sa.Column("workspace", ID, nullable=False),
        sa.Column("path_digest", ID, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("writes", NUMBER, nullable=False),
        sa.Column("last_position", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "path_digest", name=op.f("pk_file_counts")),
        if_not_exists=True,
    )
    op.create_index(
        "ix_file_counts_workspace_writes", "file_counts", ["workspace", "writes", "last_position"], if_not_exists=True
    )
    op.create_index("ix_file_counts_writes", "file_counts", ["writes", "last_position"], if_not_exists=True)


def create_indexes() -> None:
    index = create_index
    prefix = sa.text("substr(subject, 1, 200)")  # a path may be longer than an entry of PostgreSQL's index
    index("ix_events_path", "events", [prefix, "workspace", "position"], "type = 'FileWritten'")
    failures = "type IN ('CycleFailed', 'CycleAbandoned', 'RestartGaveUp')"
    index("ix_events_failure", "events", ["workspace", "position"], failures)
    index("ix_restarts_workspace_from_position", "restarts", ["workspace", "from_position"])
    index("ix_restarts_workspace_writes", "restarts", ["workspace", "writes", "queued_position"])
    drop_index("ix_restarts_workspace_queued_position", "restarts")
    summed = ["state", "cause", "writes", "attempts", "shadow", "opened_at", "started_at", "ended_at"]
    index("ix_restarts_workspace_queued_position", "restarts", ["workspace", "queued_position", *summed])
