"""States in their new shape: without registration and lease, in ``folded_state``. Rows are converted when next written.

The upgrade fills ``registrations`` by one statement from the events that said them, so its time does not depend on the
states. It takes no lock: positions are in commit order, so what it fills is exact up to the newest one that it sees
first, which ``counters`` keeps under ``registrations``. Code that runs on goes on; what it registers later is found
when its row is converted.
The downgrade puts every row, lease and snapshot back into the old shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

APPEND_LOCK = 7_311_423_940_867_843
PAGE = 500
FIELDS = ("fleet", "labels", "executor", "target", "policy")
NEWEST = """
    SELECT workspace, max(position) AS position FROM events
    WHERE type IN ('WorkspaceRegistered', 'WorkspaceChanged') AND type <> 'FileWritten'
        AND position <= (SELECT position FROM counters WHERE name = 'registrations')
    GROUP BY workspace
"""
FILL = """
    INSERT INTO registrations (workspace, position, fleet, executor, pool, labels, target, policy)
    SELECT said.workspace, said.position, {fleet}, {executor}, {pool}, {labels}, {target}, {policy}
    FROM events AS said JOIN ({newest}) AS newest ON newest.position = said.position
"""


def upgrade() -> None:
    op.execute("DELETE FROM registrations")
    op.execute("DELETE FROM counters WHERE name = 'registrations'")
    op.execute(
        "INSERT INTO counters (name, position, sums)"
        " SELECT 'registrations', coalesce(max(position), 0), '{}' FROM events"
    )
    postgres = op.get_context().dialect.name == "postgresql"
    op.execute(FILL.format(newest=NEWEST, **(_in_postgres() if postgres else _in_sqlite())))


def downgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        op.execute(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})")
    for row in _pages(bind, STATES, ("id",)):
        values = {"id": row["id"], "state": _old(row["folded_state"], row), "lease": row["until"] or row["lease_until"]}
        bind.execute(KEEP_STATE, values)
    for row in _pages(bind, SNAPSHOTS, ("workspace", "position")):
        values = {"workspace": row["workspace"], "position": row["position"], "state": _old(row["state"], _said(row))}
        bind.execute(KEEP_SNAPSHOT, values)
    op.execute("DELETE FROM leases")
    op.execute("DELETE FROM counters WHERE name = 'registrations'")


def _in_postgres() -> dict[str, str]:
    texts = {name: f"said.data::json ->> '{name}'" for name in ("fleet", "executor")}
    whole = {name: f"(said.data::json -> '{name}')::text" for name in ("labels", "target", "policy")}
    pool = "said.data::json -> 'target' -> 'pool'"
    return {
        **texts,
        **whole,
        "pool": f"CASE WHEN json_typeof({pool}) = 'string' THEN said.data::json -> 'target' ->> 'pool'"
        " WHEN said.data::json ->> 'executor' = 'process' THEN 'up' ELSE 'default' END",
    }


def _in_sqlite() -> dict[str, str]:
    texts = {name: f"said.data ->> '$.{name}'" for name in ("fleet", "executor")}
    whole = {name: f"said.data -> '$.{name}'" for name in ("labels", "target", "policy")}
    return {
        **texts,
        **whole,
        "pool": "CASE WHEN json_type(said.data, '$.target.pool') = 'text' THEN said.data ->> '$.target.pool'"
        " WHEN said.data ->> '$.executor' = 'process' THEN 'up' ELSE 'default' END",
    }


STATES = """
    SELECT w.id, w.folded_state, w.lease_until, l.until, r.position AS registered,
      r.fleet, r.labels, r.executor, r.target, r.policy
    FROM workspaces AS w LEFT JOIN registrations AS r ON r.workspace = w.id LEFT JOIN leases AS l ON l.workspace = w.id
    WHERE w.folded_state IS NOT NULL AND w.id > :id ORDER BY w.id LIMIT :limit
"""
KEEP_STATE = sa.text("UPDATE workspaces SET state = :state, folded_state = NULL, lease_until = :lease WHERE id = :id")
SNAPSHOTS = """
    SELECT s.workspace, s.position, s.state, e.position AS registered, e.data
    FROM workspace_snapshots AS s LEFT JOIN events AS e ON e.position = {registered}
    WHERE {new} AND (s.workspace, s.position) > (:workspace, :position)
    ORDER BY s.workspace, s.position LIMIT :limit
"""
KEEP_SNAPSHOT = sa.text(
    "UPDATE workspace_snapshots SET state = :state WHERE workspace = :workspace AND position = :position"
)


def _pages(bind: sa.Connection, statement: str, keys: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    if "{registered}" in statement:
        json_number = "(s.state::json ->> 'registration_position')::bigint"
        registered = json_number if bind.dialect.name == "postgresql" else "s.state ->> '$.registration_position'"
        statement = statement.format(registered=registered, new=f"{registered} IS NOT NULL")
    last: dict[str, Any] = {"id": ""} if keys == ("id",) else {"workspace": "", "position": 0}
    while page := bind.execute(sa.text(statement), {**last, "limit": PAGE}).mappings().all():
        yield from map(dict, page)
        last = {name: page[-1][name] for name in keys}


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event said that a snapshot's state was registered by, each part as text."""
    if row["registered"] is None:
        return {"registered": None}
    data = json.loads(row["data"])
    return {"registered": row["registered"], **{name: _spelled(data[name]) for name in FIELDS}} | {
        name: data[name] for name in ("fleet", "executor")
    }


def _old(text: str, said: Mapping[str, Any]) -> str:
    """Return a state of the new shape in the old one, canonical as both are."""
    state = json.loads(text)
    del state["registration_position"]
    state["registration"] = None
    if said["registered"] is not None:
        state["registration"] = {
            "fleet": said["fleet"],
            "executor": said["executor"],
            **{name: json.loads(said[name]) for name in ("labels", "target", "policy")},
        }
    next_try = state.pop("next_try")
    state["next_try_at"] = next_try["at"] if next_try else None
    if next_try and next_try["anyway"]:
        state["next_try_anyway"] = True
    state["window"], state["folded"] = _old_window(state["window"]), _old_folded(state["folded"])
    return _spelled(state)


def _old_writes(writes: Mapping[str, Any] | None) -> dict[str, Any]:
    held = writes or {"count": 0, "reload_only": True, "first_at": None, "last_at": None}
    return {
        "writes": held["count"],
        "reload_only": held["reload_only"],
        "first_write_at": held["first_at"],
        "last_write_at": held["last_at"],
    }


def _old_folded(folded: Mapping[str, Any]) -> dict[str, Any]:
    return {"opened_at": folded["opened_at"], "requests": folded["requests"], **_old_writes(folded["writes"])}


def _old_window(window: Mapping[str, Any]) -> dict[str, Any]:
    nothing = {"policy_from": None, "rule_until": None}
    fresh = window["writes"] or {"all": None, "opened_idle": False, "quiet": nothing, "max_wait": nothing, "full": None}
    asked = window["requests"] or {"count": 0, "manual_at": None, "mutation_at": None, "probe_at": None}
    full = fresh["full"] or {"at": None, "max_count": None}
    return {
        "opened_at": window["opened_at"],
        "requests": asked["count"],
        **{name: asked[name] for name in ("manual_at", "mutation_at", "probe_at")},
        **_old_writes(fresh["all"]),
        "policy_quiet_from": fresh["quiet"]["policy_from"],
        "rule_quiet_until": fresh["quiet"]["rule_until"],
        "policy_max_wait_from": fresh["max_wait"]["policy_from"],
        "rule_max_wait_until": fresh["max_wait"]["rule_until"],
        "max_count_at": full["at"],
        "max_count_of": full["max_count"],
        "opened_idle": fresh["opened_idle"],
    }


def _spelled(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
