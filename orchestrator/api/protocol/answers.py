"""The schemas of the API's answers, for its description. The tests hold every real answer against them."""

from __future__ import annotations

from typing import Any

from orchestrator.domain.events import Cause, Kind, Operation, Suppression, Trigger, Waiver, WriteDecision
from orchestrator.domain.explain import FateStatus
from orchestrator.domain.policy import Action
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase

WRITE = "AcceptedWrite"
BATCH = "AcceptedBatch"
FATE, FATES = "Fate", "Fates"
WORKSPACE, WORKSPACES = "Workspace", "Workspaces"
REMOVED = "RemovedWorkspace"
REQUEST = "AcceptedRequest"
PROBE = "ProbeAnswer"
DONE = "Done"
RESTARTS = "Restarts"
STORY = "RestartStory"
EVENTS, EVENTS_AFTER = "Events", "EventsAfter"
CHECKPOINTS, EVIDENCE = "Checkpoints", "Evidence"
POLICY = "PolicyLayer"
SUMMARY, STORMS, HOT_FILES, FAILURES = "AuditSummary", "Storms", "HotFiles", "Failures"
EXPORT = "Export"
KEYS = "Keys"
NEW_KEY = "NewKey"
REVOKED_KEYS = "RevokedKeys"
WHOAMI = "WhoAmI"
ALIVE, READY = "Alive", "Readiness"

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": "integer"}
_WHOLE_OR_NULL: Schema = {"type": ["integer", "null"]}
_FLAG: Schema = {"type": "boolean"}
_ANY_OBJECT: Schema = {"type": "object", "additionalProperties": True}
_OBJECT_OR_NULL: Schema = {"type": ["object", "null"], "additionalProperties": True}
_AT: Schema = {"type": "string", "format": "date-time"}
_AT_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}


def _one_of(*values: str | None) -> Schema:
    return {"enum": [None if value is None else str(value) for value in values]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(*, closed: bool = True, **fields: Schema) -> Schema:
    """Return the schema of an object that always has all its fields; ``closed``: and no others."""
    return {"type": "object", "required": sorted(fields), "properties": fields, "additionalProperties": not closed}


_POLICY: dict[str, Any] = {
    "scope": _TEXT,
    "version": _WHOLE,
    "policy": _ANY_OBJECT,
    "in_force": _ANY_OBJECT,
    "in_force_version": _WHOLE,
    "from": {"type": "object", "additionalProperties": _TEXT},
}


def _pages(item: Schema) -> Schema:
    return _object(items=_list(item), next_cursor=_TEXT_OR_NULL)


_DECISION = _one_of(*WriteDecision)
_COUNTS: Schema = {"type": "object", "additionalProperties": _WHOLE}
_PERCENTILES = _object(p50=_WHOLE_OR_NULL, p90=_WHOLE_OR_NULL, p99=_WHOLE_OR_NULL, max=_WHOLE_OR_NULL)
_WAIVED = _object(writes=_WHOLE, from_position=_WHOLE, to_position=_WHOLE)
_CHECK = {
    "type": "object",
    "required": ["ok", "detail"],
    "properties": {"ok": _FLAG, "detail": _TEXT, "age_s": {"type": "number"}},
}
_RESTART = {
    "id": _TEXT,
    "workspace": _TEXT,
    "fleet": _TEXT,
    "state": _one_of(*RestartState),
    "cause": _one_of(*Cause),
    "kind": _one_of(*Kind),
    "from_position": _WHOLE,
    "to_position": _WHOLE,
    "writes": _WHOLE,
    "requests": _WHOLE,
    "files": _WHOLE,
    "due_at": _AT,
    "queued_at": _AT,
    "attempts": _WHOLE,
    "cycle": _TEXT_OR_NULL,
    "started_at": _AT_OR_NULL,
    "ended_at": _AT_OR_NULL,
}

_KEY = _object(
    id=_TEXT,
    name=_TEXT,
    role=_one_of("writer", "operator", "auditor", "admin"),
    scopes=_list(_TEXT),
    state=_one_of("live", "expired", "revoked"),
    created_at=_AT,
    created_by=_TEXT,
    expires_at=_AT_OR_NULL,
    revoked_at=_AT_OR_NULL,
    last_used_at=_AT_OR_NULL,
    writes_per_minute={"type": ["integer", "null"]},
    reads_per_minute={"type": ["integer", "null"]},
)
SCHEMAS: dict[str, Schema] = {
    WRITE: _object(
        id=_TEXT,
        workspace=_TEXT,
        position=_WHOLE,
        action=_one_of(*Action),
        decision=_DECISION,
        due_at=_AT_OR_NULL,
        replayed=_FLAG,
    ),
    "BatchResult": _object(index=_WHOLE, id=_TEXT, position=_WHOLE, decision=_DECISION, replayed=_FLAG),
    "Rejected": _object(
        index=_WHOLE, problem=_object(closed=False, type=_TEXT, title=_TEXT, status=_WHOLE, detail=_TEXT)
    ),
    BATCH: _object(
        accepted=_WHOLE, replayed=_WHOLE, results=_list(_ref("BatchResult")), rejected=_list(_ref("Rejected"))
    ),
    FATE: _object(
        closed=False,
        id=_TEXT,
        workspace=_TEXT,
        position=_WHOLE,
        type=_one_of("FileWritten", "RestartRequested"),
        recorded_at=_AT,
        path=_TEXT_OR_NULL,
        op=_one_of(*Operation, None),
        action=_one_of(*Action, None),
        trigger=_one_of(*Trigger, None),
        status=_one_of(*FateStatus),
        final=_FLAG,
        explanation=_TEXT,
        restart=_TEXT_OR_NULL,
        cycle=_TEXT_OR_NULL,
        covered_at=_AT_OR_NULL,
        due_at=_AT_OR_NULL,
        waived_reason=_one_of(*Waiver, None),
    ),
    FATES: _object(items=_list(_ref(FATE)), missing=_list(_TEXT)),
    WORKSPACE: _object(
        closed=False,
        id=_TEXT,
        state=_one_of(*Phase),
        unserved_since=_AT_OR_NULL,
        fleet=_TEXT_OR_NULL,
        labels={"type": "object", "additionalProperties": _TEXT},
        executor=_TEXT_OR_NULL,
        target=_ANY_OBJECT,
        hold=_OBJECT_OR_NULL,
        pending_writes=_WHOLE,
        pending_requests=_WHOLE,
        due_at=_AT_OR_NULL,
        restart=_OBJECT_OR_NULL,
        running_cycle=_OBJECT_OR_NULL,
        last_cycle=_OBJECT_OR_NULL,
        crash_looping=_FLAG,
        crash_loop=_OBJECT_OR_NULL,
        version=_WHOLE,
        policy=_ANY_OBJECT,
        policy_in_force=_ANY_OBJECT,
        policy_version=_WHOLE,
    ),
    WORKSPACES: _pages(_ref(WORKSPACE)),
    REMOVED: _object(workspace=_TEXT, removed=_FLAG, waived={"anyOf": [_WAIVED, {"type": "null"}]}),
    REQUEST: _object(id=_TEXT, position=_WHOLE, due_at=_AT_OR_NULL, replayed=_FLAG),
    PROBE: {
        "type": "object",
        "required": ["decision", "replayed"],
        "properties": {
            "decision": _one_of("requested", "suppressed", "ignored"),
            "reason": _one_of(*Suppression),
            "id": _TEXT,
            "replayed": _FLAG,
        },
        "additionalProperties": False,
    },
    DONE: _object(closed=False, workspace=_TEXT, changed=_FLAG, replayed=_FLAG),
    "Restart": _object(closed=False, **_RESTART),
    RESTARTS: _pages(_ref("Restart")),
    STORY: _object(
        closed=False,
        explanation=_TEXT,
        cycles=_list(_ANY_OBJECT),
        counts=_ANY_OBJECT,
        top_paths=_list(_ANY_OBJECT),
        actors=_list(_ANY_OBJECT),
        **{**_RESTART, "requests": _list(_ANY_OBJECT)},
    ),
    "Event": _object(
        position=_WHOLE,
        id=_TEXT,
        workspace=_TEXT_OR_NULL,
        version=_WHOLE_OR_NULL,
        # Not one of EVENT_TYPES: a type of no workspace that a newer version wrote is shown as it is stored.
        type=_TEXT,
        schema=_WHOLE,
        recorded_at=_AT,
        occurred_at=_AT_OR_NULL,
        actor=_TEXT,
        source=_TEXT_OR_NULL,
        source_id=_TEXT_OR_NULL,
        correlation_id=_TEXT_OR_NULL,
        causation_id=_TEXT_OR_NULL,
        data=_ANY_OBJECT,
    ),
    EVENTS: _pages(_ref("Event")),
    EVENTS_AFTER: _object(items=_list(_ref("Event")), next_after=_WHOLE, more=_FLAG),
    POLICY: _object(**_POLICY),
    "Checkpoint": _object(
        size=_WHOLE,
        position=_WHOLE,
        root=_TEXT,
        sealed_at=_AT,
        exported_at=_AT_OR_NULL,
        previous_size=_WHOLE,
        consistency=_list(_TEXT),
        note=_TEXT,
    ),
    CHECKPOINTS: _pages(_ref("Checkpoint")),
    EVIDENCE: _object(
        format=_TEXT,
        origin=_TEXT,
        restart=_TEXT,
        checkpoint=_TEXT,
        events=_list(_object(index=_WHOLE, line=_TEXT, proof=_list(_TEXT))),
    ),
    SUMMARY: _object(
        scope=_object(workspace=_TEXT_OR_NULL, fleet=_TEXT_OR_NULL, since=_AT_OR_NULL, until=_AT_OR_NULL),
        restarts=_WHOLE,
        by_state=_COUNTS,
        by_cause=_COUNTS,
        shadow=_WHOLE,
        cycles=_WHOLE,
        writes_covered=_WHOLE,
        restarts_started=_WHOLE,
        restarts_avoided=_WHOLE,
        oldest_write_waited=_object(restarts=_WHOLE, to_start_ms=_PERCENTILES, to_success_ms=_PERCENTILES),
        failures=_object(failed=_COUNTS, abandoned=_COUNTS, gave_up=_WHOLE, complete=_FLAG),
        complete=_FLAG,
    ),
    STORMS: _object(items=_list(_ref("Restart"))),
    HOT_FILES: _object(
        items=_list(_object(workspace=_TEXT, path=_TEXT, writes=_WHOLE, last_position=_WHOLE)), complete=_FLAG
    ),
    FAILURES: _object(
        items=_list(
            _object(
                position=_WHOLE,
                id=_TEXT,
                recorded_at=_AT,
                workspace=_TEXT,
                type=_one_of("CycleFailed", "CycleAbandoned", "RestartGaveUp"),
                kind=_TEXT_OR_NULL,
                restart=_TEXT,
                cycle=_TEXT_OR_NULL,
                message=_TEXT_OR_NULL,
                retry_at=_AT_OR_NULL,
                next_try_at=_AT_OR_NULL,
            )
        ),
        failed=_COUNTS,
        abandoned=_COUNTS,
        gave_up=_WHOLE,
        complete=_FLAG,
    ),
    EXPORT: _list({"anyOf": [_ref("Event"), _ref("Restart")]}),
    KEYS: _object(items=_list(_KEY)),
    NEW_KEY: _object(**_KEY["properties"], key=_TEXT),
    REVOKED_KEYS: _object(revoked=_list(_object(id=_TEXT, name=_TEXT))),
    WHOAMI: _object(actor=_TEXT, key=_TEXT_OR_NULL, scopes=_list(_TEXT)),
    ALIVE: _object(status=_one_of("alive")),
    READY: _object(
        status=_one_of("ready", "degraded", "unavailable"),
        checks=_object(database=_CHECK, migrations=_CHECK, broker=_CHECK, beat=_CHECK, seal=_CHECK, claims=_CHECK),
    ),
}
"""Every answer's schema by its name."""
