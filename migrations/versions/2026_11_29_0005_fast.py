"""What keeps a write from waiting for what others do: policies that are read once for each version."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _upgrade_policies()


def downgrade() -> None:
    _downgrade_policies()


def _upgrade_policies() -> None:
    """A process keeps the decoded layers, and asks before it uses them whether there is a newer version."""
    op.create_index("ix_policies_version", "policies", ["version"])


def _downgrade_policies() -> None:
    op.drop_index("ix_policies_version", "policies")
