"""What keeps a write from waiting for what others do: policies that are read once for each version."""

from __future__ import annotations

from alembic import op

from migrations.without_stopping import create_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


_FORETELL = """
DO $$
DECLARE
    named text;
BEGIN
    FOR named IN
        SELECT DISTINCT grantee FROM information_schema.role_column_grants
        WHERE table_schema = current_schema() AND table_name = 'events' AND privilege_type = 'INSERT'
            AND grantee NOT IN (current_user, 'PUBLIC')
    LOOP
        EXECUTE format(
            'GRANT SELECT ON SEQUENCE %s TO %I', pg_get_serial_sequence('events', 'position'), named
        );
    END LOOP;
END
$$
"""


def upgrade() -> None:
    _let_appenders_foretell_positions()
    _upgrade_policies()


def downgrade() -> None:
    _downgrade_policies()


def _upgrade_policies() -> None:
    """A process keeps the decoded layers, and asks before it uses them whether there is a newer version."""
    create_index("ix_policies_version", "policies", ["version"])


def _let_appenders_foretell_positions() -> None:
    """Whoever appends may see the last position from here on, also where this upgrade is not told the app's role."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_FORETELL)


def _downgrade_policies() -> None:
    op.drop_index("ix_policies_version", "policies")
