"""The tables, once for PostgreSQL and SQLite (DESIGN section 3). ``migrations`` creates them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from orchestrator.storage.sql.column_types import ID, NUMBER, Instant

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMING)


NOT_A_WRITE = sa.text("type <> 'FileWritten'")
"""Predicate of a partial index. A query must repeat it literally, or SQLite does not see that the index fits."""
IS_WRITE = sa.text("type = 'FileWritten'")
path_prefix: sa.ColumnElement[str] = sa.literal_column("substr(subject, 1, 200)", sa.Text())
"""A path as an index holds it: a path may be longer than an entry of PostgreSQL's index (about 2,700 bytes).
Literal, as SQLite finds the index by the very words."""
PREFIX_CHARACTERS = 200
IS_FAILURE = sa.text("type IN ('CycleFailed', 'CycleAbandoned', 'RestartGaveUp')")
IS_POLICY_CHANGE = sa.text("type = 'PolicyChanged'")
"""Literal too: SQLite prepares a statement anew at each use of a bound value that it compared with a partial index."""
IS_WAIVER = sa.text("type = 'WritesWaived'")
IS_CYCLE_START = sa.text("type = 'CycleStarted'")


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


events = sa.Table(
    "events",
    metadata,
    sa.Column("position", NUMBER, sa.Identity(always=True), primary_key=True),
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
    sa.Column("occurred_at", Instant),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("traceparent", sa.Text),
    sa.UniqueConstraint("id"),
    sa.UniqueConstraint("workspace", "version"),
    sa.CheckConstraint("source_id IS NULL OR source IS NOT NULL", name="source_of_source_id"),
    sa.Index("ix_events_workspace_position", "workspace", "position"),
    sa.Index("ix_events_type_position", "type", "position", **_where(NOT_A_WRITE.text)),
    sa.Index("ix_events_waiver", "workspace", "position", **_where(IS_WAIVER.text)),
    sa.Index("ix_events_cycle_start", "subject", **_where(IS_CYCLE_START.text)),
    sa.Index("ix_events_path", path_prefix, "workspace", "position", **_where(IS_WRITE.text)),
    sa.Index("ix_events_failure", "workspace", "position", **_where(IS_FAILURE.text)),
    sa.Index("ix_events_recorded_at", "recorded_at"),
    sa.Index("ix_events_correlation_id", "correlation_id", **_where("correlation_id IS NOT NULL")),
    sa.Index("uq_events_source_source_id", "source", "source_id", unique=True, **_where("source_id IS NOT NULL")),
    sqlite_autoincrement=True,
)
"""The log. ``subject``: the path of a write, the cycle of a ``CycleStarted``, else the restart that is spoken of."""

workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("version", NUMBER, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("pending_first_at", Instant),
    sa.Column("pending_last_at", Instant),
    sa.Column("pending_count", NUMBER, nullable=False),
    sa.Column("pending_requests", NUMBER, nullable=False),
    sa.Column("due_at", Instant),
    sa.Column("ready_at", Instant),
    sa.Column("held_until", Instant),
    sa.Column("fence", NUMBER, nullable=False),
    sa.Column("lease_until", Instant),
    sa.Column("folded_state", sa.Text),
    sa.Index("ix_workspaces_phase_id", "phase", "id"),
    sa.Index("ix_workspaces_fleet_phase_id", "fleet", "phase", "id"),
    sa.Index("ix_workspaces_due_at", "due_at", **_where("due_at IS NOT NULL")),
    sa.Index("ix_workspaces_ready_at", "ready_at", **_where("ready_at IS NOT NULL")),
    sa.Index("ix_workspaces_held_until", "held_until", **_where("held_until IS NOT NULL")),
    sa.Index("ix_workspaces_lease_until", "lease_until", **_where("lease_until IS NOT NULL")),
    postgresql_with={"fillfactor": 50},  # room in the page for the row's next versions: it changes with every write
)
"""One row each: the folded state without its lease, and what queries and locks need of it as columns."""

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("workspace", ID, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("cycle", ID, nullable=False),
    sa.Column("fence", NUMBER, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("until", Instant, nullable=False),
    sa.Index("ix_leases_until", "until"),
    sa.Index("ix_leases_worker", "worker"),
)
"""The right to run an open cycle, and until when: renewed beside the log, so no ingest ever locks or waits for it."""

registrations = sa.Table(
    "registrations",
    metadata,
    sa.Column("workspace", ID, primary_key=True),
    sa.Column("position", NUMBER, nullable=False),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("executor", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Index("ix_registrations_executor_pool", "executor", "pool", "workspace"),
)
"""What each workspace is, as the event at ``position`` said: not in its state, which every write stores again."""

workspace_labels = sa.Table(
    "workspace_labels",
    metadata,
    sa.Column("workspace", ID, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Index("ix_workspace_labels_key_value_workspace", "key", "value", "workspace"),
)
"""A row for each label of ``registrations``, kept by its triggers, so that every version's writes are followed."""

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("executors", sa.Text, nullable=False),
    sa.Column("pools", sa.Text, nullable=False),
    sa.Column("slots", NUMBER, nullable=False),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
)
"""The workers that were seen lately, and what each serves (``executors`` and ``pools``: JSON lists)."""

executors_away = sa.Table(
    "executors_away",
    metadata,
    sa.Column("executor", sa.Text, primary_key=True),
    sa.Column("pool", sa.Text, primary_key=True),
    sa.Column("since", Instant, nullable=False),
    sa.Column("position", NUMBER, nullable=False),
)
"""What nobody serves now: the ``ExecutorAway`` (at ``position``) that no ``ExecutorBack`` has followed."""

_SUMMED = ("state", "cause", "writes", "attempts", "shadow", "opened_at", "started_at", "ended_at")

_FILTERED = ("state", "cause", "queued_position")

restarts = sa.Table(
    "restarts",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("workspace", ID, nullable=False),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("from_position", NUMBER, nullable=False),
    sa.Column("to_position", NUMBER, nullable=False),
    sa.Column("writes", NUMBER, nullable=False),
    sa.Column("requests", NUMBER, nullable=False),
    sa.Column("files", NUMBER, nullable=False),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("last_write_at", Instant),
    sa.Column("due_at", Instant, nullable=False),
    sa.Column("queued_at", Instant, nullable=False),
    sa.Column("queued_position", NUMBER, nullable=False),
    sa.Column("quiet_ms", NUMBER, nullable=False),
    sa.Column("max_wait_ms", NUMBER, nullable=False),
    sa.Column("max_count", NUMBER, nullable=False),
    sa.Column("edge", sa.Text, nullable=False),
    sa.Column("min_interval_ms", NUMBER, nullable=False),
    sa.Column("policy_version", NUMBER, nullable=False),
    sa.Column("attempts", NUMBER, nullable=False),
    sa.Column("shadow", sa.Boolean, nullable=False),
    sa.Column("cycle", sa.Text),
    sa.Column("first_started_at", Instant),
    sa.Column("started_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("retry_at", Instant),
    sa.Column("error", sa.Text),
    # Not unique: a given-up restart and the one that follows it may end at the same position.
    sa.Index("ix_restarts_workspace_to_position", "workspace", "to_position"),
    # Holds what a workspace's sums and waits need, so that they read no row (measured on SQLite: a third of the time).
    sa.Index("ix_restarts_workspace_queued_position", "workspace", "queued_position", *_SUMMED),
    sa.Index("ix_restarts_fleet_queued_position", "fleet", "queued_position"),
    sa.Index("ix_restarts_state_cause_queued_position", *_FILTERED),
    sa.Index("ix_restarts_workspace_state_cause_queued_position", "workspace", *_FILTERED),
    sa.Index("ix_restarts_fleet_state_cause_queued_position", "fleet", *_FILTERED),
    sa.Index("ix_restarts_queued_position", "queued_position"),
    sa.Index("ix_restarts_queued_at", "queued_at"),
    sa.Index("ix_restarts_workspace_from_position", "workspace", "from_position"),
    sa.Index("ix_restarts_workspace_writes", "workspace", "writes", "queued_position"),
    sa.Index("ix_restarts_writes", "writes"),
)
"""The read model of each restart, written in the transaction of the event that changes it."""

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("version", NUMBER, nullable=False),
    sa.Column("recomputed_to", sa.Text),
    sa.Index("ix_policies_version", "version"),
)
"""The stored policy layers: ``settings``, ``default``, ``fleet:NAME``. A change has a version above all before it.

``recomputed_to``: the last workspace, by id, of which the open window follows the layer; NULL: all of its scope do.
"""
_behind = policies.c.recomputed_to.is_not(None)
sa.Index("ix_policies_recomputing", policies.c.version, postgresql_where=_behind, sqlite_where=_behind)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("actor", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("remembered_at", Instant, nullable=False),
    sa.Index("ix_idempotency_keys_remembered_at", "remembered_at"),
)
"""What was answered to each actor's idempotency keys."""

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("at", Instant, nullable=False),
)
"""When something that must go on was last seen to: ``tick``."""

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", NUMBER, nullable=False),
    sa.Column("sums", sa.Text, nullable=False),
)
"""Sums over the log up to a position, so that a scrape reads only what came since. One row: ``log``."""

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("tree_size", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("position", NUMBER, nullable=False),
    sa.Column("root", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("previous_size", NUMBER, nullable=False),
    sa.Column("consistency", sa.Text, nullable=False),
    sa.Column("sealed_at", Instant, nullable=False),
    sa.Column("exported_at", Instant),
    sa.UniqueConstraint("previous_size"),  # of two sealers at once one is refused: the checkpoints are one chain
    sa.Index("ix_checkpoints_position", "position"),
    sa.Index("ix_checkpoints_unexported", "tree_size", **_where("exported_at IS NULL")),
)
"""Signed heads of the Merkle tree over the log. ``position``: of the last event in the tree; ``consistency``: the
proof (JSON list of base64) that the tree of ``previous_size`` is its beginning; ``exported_at``: every sink has it."""

merkle_tiles = sa.Table(
    "merkle_tiles",
    metadata,
    sa.Column("level", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("tile", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
    sa.Column("first_position", NUMBER),
    sa.Column("last_position", NUMBER),
    sa.Index("ix_merkle_tiles_last_position", "last_position", **_where("level = 0")),
)
"""The tree's hashes, 256 a tile; the last tile of a level may be partial. Positions: of a level 0 tile's events."""

workspace_snapshots = sa.Table(
    "workspace_snapshots",
    metadata,
    sa.Column("workspace", ID, primary_key=True),
    sa.Column("position", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Index("ix_workspace_snapshots_position", "position", unique=True),
)
"""A workspace's folded state right after the event that settled a restart: a past state folds only what came since."""

file_counts = sa.Table(
    "file_counts",
    metadata,
    sa.Column("workspace", ID, primary_key=True),
    sa.Column("path_digest", ID, primary_key=True),  # a path may be longer than an index entry
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("writes", NUMBER, nullable=False),
    sa.Column("last_position", NUMBER, nullable=False),
    sa.Index("ix_file_counts_workspace_writes", "workspace", "writes", "last_position"),
    sa.Index("ix_file_counts_writes", "writes", "last_position"),
)
"""Writes of each file, up to the position that ``counters`` keeps under ``file_counts``."""


def _amounts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, NUMBER, nullable=False) for name in names]


def _key(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, ID, primary_key=True) for name in names]


summed_workspaces = sa.Table(
    "summed_workspaces",
    metadata,
    *_key("workspace"),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    *_amounts("pending_writes", "waiting"),
)
"""What each workspace counts for in ``backlog_sums``: its row when it was looked at last."""

backlog_sums = sa.Table(
    "backlog_sums", metadata, *_key("fleet", "phase"), *_amounts("workspaces", "pending_writes", "waiting")
)
"""The sums of ``summed_workspaces``. This and the next three are kept behind the log by a chore, up to the position
that ``counters`` has under ``sums``; emptied together with that row, they come about anew."""

activity_sums = sa.Table(
    "activity_sums",
    metadata,
    *_key("kind", "name"),
    sa.Column("since", Instant, primary_key=True),
    *_amounts("writes", "restarts", "cycles_failed"),
    sa.Index("ix_activity_sums_kind_since_name", "kind", "since", "name"),
)
"""What was recorded in the five minutes from ``since`` on: writes, restarts queued, cycles failed. ``kind``:
``workspace``, ``fleet`` (of the workspaces that were in it at that event) or ``all``, which has no name."""

restart_sums = sa.Table(
    "restart_sums",
    metadata,
    *_key("kind", "name"),
    sa.Column("period_s", NUMBER, primary_key=True),
    sa.Column("since", Instant, primary_key=True),
    *_key("state", "cause"),
    *_amounts("restarts", "started", "shadow", "writes", "cycles"),
)
"""Settled restarts, which change no more, of a fleet or of all, by when they were queued: in periods of five minutes,
and once more in days."""

failure_sums = sa.Table(
    "failure_sums",
    metadata,
    *_key("kind", "name"),
    sa.Column("period_s", NUMBER, primary_key=True),
    sa.Column("since", Instant, primary_key=True),
    *_key("type", "error"),
    *_amounts("failures"),
)
"""Failures by when they were recorded, as ``restart_sums``. ``error``: its kind or the reason; empty: it has none."""

KEPT_SUMS = (summed_workspaces, backlog_sums, activity_sums, restart_sums, failure_sums)

verifications = sa.Table(
    "verifications",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", NUMBER, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("violations", sa.Text, nullable=False),
    sa.Column("imbalance", NUMBER, nullable=False),
    sa.Column("verified_at", Instant, nullable=False),
)
"""How far the log was verified, with what state to go on, and what was found. One row: ``log``."""

access_keys = sa.Table(
    "access_keys",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", ID, nullable=False),
    sa.Column("digest", ID, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("last_used_at", Instant),
    sa.Column("writes_per_minute", NUMBER),
    sa.Column("reads_per_minute", NUMBER),
    sa.Column("writes_used_until", Instant),
    sa.UniqueConstraint("digest"),
)
"""The keys of callers, those that are over too. ``digest``: SHA-256 of the key, which itself is nowhere; ``scopes``: a
JSON list; ``last_used_at`` is noted outside of the log, to the minute; ``writes_used_until`` with what it counts."""
