"""An index for every filter of the lists: states and causes of restarts, states and labels of workspaces.

``workspace_labels`` is kept by triggers of ``registrations``, so that the version before, which knows nothing of it,
goes on beside this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.without_stopping import create_index, drop_index, in_pages, writers_go_on

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
PAGE = 200
FILTERED = ["state", "cause", "queued_position"]

_GRANT = """
DO $$
DECLARE
    named text;
    verb text;
BEGIN
    FOR named, verb IN
        SELECT DISTINCT grantee, privilege_type FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'registrations'
            AND privilege_type IN ('SELECT', 'INSERT') AND grantee NOT IN (current_user, 'PUBLIC')
    LOOP
        EXECUTE format(
            'GRANT %s ON workspace_labels TO %I', CASE verb WHEN 'INSERT' THEN 'INSERT, DELETE' ELSE verb END, named
        );
    END LOOP;
END
$$
"""
"""Whoever registers keeps the labels too, also where this upgrade is not told the app's role."""

_KEEP = """
CREATE OR REPLACE FUNCTION registrations_keep_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM workspace_labels WHERE workspace = OLD.workspace;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO workspace_labels (workspace, key, value)
        SELECT NEW.workspace, label.key, label.value FROM json_each_text(NEW.labels::json) AS label;
    END IF;
    RETURN NULL;
END $$
"""
_TRIGGER = """
CREATE TRIGGER registrations_labels AFTER INSERT OR DELETE OR UPDATE OF labels ON registrations
FOR EACH ROW EXECUTE FUNCTION registrations_keep_labels()
"""
_FORGET_HERE = "DELETE FROM workspace_labels WHERE workspace = {row}.workspace;"
_KEEP_HERE = (
    "INSERT INTO workspace_labels (workspace, key, value) SELECT NEW.workspace, key, value FROM json_each(NEW.labels);"
)
_TRIGGERS_HERE = {
    "registrations_labels_new": f"AFTER INSERT ON registrations BEGIN {_KEEP_HERE} END",
    "registrations_labels_changed": "AFTER UPDATE OF labels ON registrations WHEN OLD.labels <> NEW.labels"
    f" BEGIN {_FORGET_HERE.format(row='OLD')} {_KEEP_HERE} END",
    "registrations_labels_gone": f"AFTER DELETE ON registrations BEGIN {_FORGET_HERE.format(row='OLD')} END",
}

_LOCK = "SELECT id FROM workspaces WHERE id > :after ORDER BY id LIMIT :most"
_FORGET = "DELETE FROM workspace_labels WHERE workspace > :after AND workspace <= :last"
_FILL = """
INSERT INTO workspace_labels (workspace, key, value)
SELECT said.id, label.key, label.value FROM (
    SELECT w.id, CASE WHEN w.folded_state IS NULL THEN {inside} ELSE r.labels END AS labels
    FROM workspaces AS w LEFT JOIN registrations AS r ON r.workspace = w.id WHERE w.id > :after AND w.id <= :last
) AS said, {listed} AS label
"""
_OLD_LABELS = "CASE WHEN json_typeof(w.state::json #> '{registration,labels}') = 'object' THEN"
_IN_POSTGRES = {
    "inside": _OLD_LABELS + " (w.state::json #> '{registration,labels}')::text END",
    "listed": "json_each_text(said.labels::json)",
}
_IN_SQLITE = {"inside": "w.state -> '$.registration.labels'", "listed": "json_each(said.labels)"}


def upgrade() -> None:
    """First what takes locks for an instant, then what takes long and none."""
    _create_labels()
    in_pages(_fill)
    create_index("ix_workspaces_phase_id", "workspaces", ["phase", "id"])
    create_index("ix_workspaces_fleet_phase_id", "workspaces", ["fleet", "phase", "id"])
    drop_index("ix_workspaces_fleet_id", "workspaces")
    create_index("ix_restarts_state_cause_queued_position", "restarts", FILTERED)
    create_index("ix_restarts_workspace_state_cause_queued_position", "restarts", ["workspace", *FILTERED])
    create_index("ix_restarts_fleet_state_cause_queued_position", "restarts", ["fleet", *FILTERED])
    drop_index("ix_restarts_state_queued_position", "restarts")


def downgrade() -> None:
    """A dropped table takes no trigger of another one along."""
    op.create_index("ix_restarts_state_queued_position", "restarts", ["state", "queued_position"])
    for leading in ("fleet_", "workspace_", ""):
        op.drop_index(f"ix_restarts_{leading}state_cause_queued_position", "restarts")
    op.create_index("ix_workspaces_fleet_id", "workspaces", ["fleet", "id"])
    for name in ("ix_workspaces_fleet_phase_id", "ix_workspaces_phase_id"):
        op.drop_index(name, "workspaces")
    if _is_postgres():
        op.execute("DROP TRIGGER registrations_labels ON registrations")
        op.execute("DROP FUNCTION registrations_keep_labels()")
    else:
        for name in _TRIGGERS_HERE:
            op.execute(f"DROP TRIGGER {name}")
    op.drop_table("workspace_labels")


def _create_labels() -> None:
    op.create_table(
        "workspace_labels",
        sa.Column("workspace", ID, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "key", name=op.f("pk_workspace_labels")),
        if_not_exists=True,
    )
    create_index("ix_workspace_labels_key_value_workspace", "workspace_labels", ["key", "value", "workspace"])
    if not _is_postgres():
        for name, what in _TRIGGERS_HERE.items():
            op.execute(f"CREATE TRIGGER {name} {what}")
        return
    op.execute(_GRANT)
    op.execute(_KEEP)
    op.execute("DROP TRIGGER IF EXISTS registrations_labels ON registrations")
    op.execute(_TRIGGER)


def _fill(connection: sa.Connection, after: str) -> str | None:
    """Fill in a page of workspaces, the rows of which nobody changes meanwhile; return the last one."""
    spelled = _IN_POSTGRES if _is_postgres() else _IN_SQLITE
    lock = sa.text(f"{_LOCK} FOR SHARE" if writers_go_on() else _LOCK)
    found = connection.execute(lock, {"after": after, "most": PAGE}).scalars().all()
    if not found:
        return None
    page = {"after": after, "last": found[-1]}
    connection.execute(sa.text(_FORGET), page)
    connection.execute(sa.text(_FILL.format(**spelled)), page)
    last: str = found[-1]
    return last


def _is_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
