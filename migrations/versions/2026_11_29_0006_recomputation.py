"""How far the due instants of open windows follow a changed policy layer: page by page, after the change's commit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.without_stopping import create_index, writers_go_on

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Layers of before are followed already: a change of theirs was one transaction with all its windows."""
    op.add_column("policies", sa.Column("recomputed_to", sa.Text, nullable=True), if_not_exists=writers_go_on())
    create_index("ix_policies_recomputing", "policies", ["version"], "recomputed_to IS NOT NULL")


def downgrade() -> None:
    """What is not followed yet then stays so until its window's next write or tick; so let it end before."""
    op.drop_index("ix_policies_recomputing", "policies")
    op.drop_column("policies", "recomputed_to")
