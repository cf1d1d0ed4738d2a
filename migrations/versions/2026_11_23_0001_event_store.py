"""The log and what is folded from it: events, workspaces, restarts, policies, keys, heartbeats, counters."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")


def where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    create_events()
    create_workspaces()
    create_restarts()
    create_small_tables()
    if op.get_bind().dialect.name == "sqlite":
        create_triggers_of_sqlite()
    else:
        create_triggers_of_postgresql()


def downgrade() -> None:
    for table in ("counters", "heartbeats", "idempotency_keys", "policies", "restarts", "workspaces", "events"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION events_take_append_lock()")
        op.execute("DROP FUNCTION events_refuse_change()")


def create_events() -> None:
    op.create_table(
        "events",
        sa.Column("position", NUMBER, sa.Identity(always=True), nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace", ID),
        sa.Column("version", NUMBER),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("schema", sa.SmallInteger, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("source_id", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("occurred_at", INSTANT),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("traceparent", sa.Text),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("id", name=op.f("uq_events_id")),
        sa.UniqueConstraint("workspace", "version", name=op.f("uq_events_workspace_version")),
        sa.CheckConstraint("source_id IS NULL OR source IS NOT NULL", name=op.f("ck_events_source_of_source_id")),
        sqlite_autoincrement=True,
    )
    index = op.create_index
    index("ix_events_workspace_position", "events", ["workspace", "position"])
    index("ix_events_type_position", "events", ["type", "position"], **where("type <> 'FileWritten'"))
    index("ix_events_waiver", "events", ["workspace", "position"], **where("type = 'WritesWaived'"))
    index("ix_events_cycle_start", "events", ["subject"], **where("type = 'CycleStarted'"))
    index("ix_events_recorded_at", "events", ["recorded_at"])
    index("ix_events_correlation_id", "events", ["correlation_id"], **where("correlation_id IS NOT NULL"))
    index(
        "uq_events_source_source_id", "events", ["source", "source_id"], unique=True, **where("source_id IS NOT NULL")
    )


def create_workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", ID, nullable=False),
        sa.Column("fleet", sa.Text, nullable=False),
        sa.Column("version", NUMBER, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("pending_first_at", INSTANT),
        sa.Column("pending_last_at", INSTANT),
        sa.Column("pending_count", NUMBER, nullable=False),
        sa.Column("pending_requests", NUMBER, nullable=False),
        sa.Column("due_at", INSTANT),
        sa.Column("ready_at", INSTANT),
        sa.Column("held_until", INSTANT),
        sa.Column("fence", NUMBER, nullable=False),
        sa.Column("lease_until", INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("ix_workspaces_fleet_id", "workspaces", ["fleet", "id"])
    for column in ("due_at", "ready_at", "held_until", "lease_until"):
        op.create_index(f"ix_workspaces_{column}", "workspaces", [column], **where(f"{column} IS NOT NULL"))


def create_restarts() -> None:
    numbers = ("from_position", "to_position", "writes", "requests", "files", "queued_position", "attempts")
    policy_numbers = ("quiet_ms", "max_wait_ms", "max_count", "min_interval_ms", "policy_version")
    op.create_table(
        "restarts",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace", ID, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("fleet", "state", "cause", "kind", "edge")),
        *(sa.Column(name, NUMBER, nullable=False) for name in (*numbers, *policy_numbers)),
        *(sa.Column(name, INSTANT, nullable=False) for name in ("opened_at", "due_at", "queued_at")),
        *(sa.Column(name, INSTANT) for name in ("last_write_at", "first_started_at", "started_at")),
        *(sa.Column(name, INSTANT) for name in ("ended_at", "retry_at")),
        sa.Column("shadow", sa.Boolean, nullable=False),
        sa.Column("cycle", sa.Text),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restarts")),
    )
    for leading in ("workspace", "fleet", "state"):
        op.create_index(f"ix_restarts_{leading}_queued_position", "restarts", [leading, "queued_position"])
    op.create_index("ix_restarts_workspace_to_position", "restarts", ["workspace", "to_position"])
    for column in ("queued_position", "queued_at", "writes"):
        op.create_index(f"ix_restarts_{column}", "restarts", [column])


def create_small_tables() -> None:
    op.create_table(
        "policies",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("version", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_policies")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("remembered_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_remembered_at", "idempotency_keys", ["remembered_at"])
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("sums", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )


def create_triggers_of_postgresql() -> None:
    """Make positions equal commit order, whoever inserts, and the log append-only, whoever asks.

    BEFORE and FOR EACH STATEMENT: measured, no position is drawn until the lock is ours, in every form of
    INSERT and in COPY. ENABLE ALWAYS: a session in replica mode does not get around them.
    """
    op.execute(
        """
        CREATE FUNCTION events_take_append_lock() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(7311423940867843);
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION events_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'events are never changed or deleted (% was refused)', TG_OP
                USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    triggers = {
        "events_append_lock": "BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION events_take_append_lock()",
        "events_append_only": "BEFORE UPDATE OR DELETE OR TRUNCATE ON events FOR EACH STATEMENT"
        " EXECUTE FUNCTION events_refuse_change()",
    }
    for name, what in triggers.items():
        op.execute(f"CREATE TRIGGER {name} {what}")
        op.execute(f"ALTER TABLE events ENABLE ALWAYS TRIGGER {name}")


def create_triggers_of_sqlite() -> None:
    """Make the log append-only. Connections set recursive_triggers, or INSERT OR REPLACE deletes unseen."""
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"""
            CREATE TRIGGER events_refuse_{verb.lower()} BEFORE {verb} ON events
            BEGIN
                SELECT RAISE(ABORT, 'events are never changed or deleted ({verb} was refused)');
            END
            """
        )
    # A position that is left to SQLite shows as -1 here.
    op.execute(
        """
        CREATE TRIGGER events_refuse_old_position BEFORE INSERT ON events
        WHEN NEW.position <> -1 AND NEW.position <= (SELECT coalesce(max(position), 0) FROM events)
        BEGIN
            SELECT RAISE(ABORT, 'a position must be above the newest');
        END
        """
    )
