"""What API, command line and export show of events, restarts and workspaces: JSON values, keys in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import asdict

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.encoding import decode_data, format_instant, to_plain, unreadable_event
from orchestrator.domain.events import Recorded
from orchestrator.domain.policy import (
    DEFAULT_FLEET,
    DEFAULT_SCOPE,
    SETTINGS_SCOPE,
    Policies,
    PolicyPatch,
    fleet_scope,
    render_policy,
)
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.secret_values import masked
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import Unreadable
from orchestrator.history.crash_loops import CrashLoop, crash_loops
from orchestrator.history.failures import Failures
from orchestrator.history.fate import Fate, latest_due
from orchestrator.history.hot_files import HotFiles
from orchestrator.history.past import Moment
from orchestrator.history.restart_story import RestartStory
from orchestrator.history.summary import Summary
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.sealing import StoredCheckpoint
from orchestrator.ports.store import Reader
from orchestrator.ports.workspaces import StoredWorkspace

View = dict[str, Any]


def event_view(event: Recorded) -> View:
    """Return the envelope of an event, key by key as the export has it (CONTRACT section 3)."""
    names = ("position", "id", "workspace", "version", "type", "schema", "recorded_at", "occurred_at", "actor")
    origin = ("source", "source_id", "correlation_id", "causation_id", "data")
    return _without_secrets({name: to_plain(getattr(event, name)) for name in (*names, *origin)})


def stored_event_view(event: StoredEvent) -> View:
    """Return the same of an event as the database keeps it. Raises ``Unreadable``."""
    try:
        data = decode_data(event.type, event.schema, bytes(event.data), of_nobody=event.workspace is None)
    except Unreadable as error:
        raise unreadable_event(event.position, event.id, error) from None
    return _without_secrets({**asdict(event), "data": to_plain(data)})


def _without_secrets(view: View) -> View:
    """Mask what looks like a secret in a registration: one of an earlier version may hold plain values."""
    target = view["data"].get("target")
    if isinstance(target, dict):
        view["data"]["target"] = masked(target)
    return view


def restart_view(record: RestartProjection) -> View:
    """Return a restart as history lists it."""
    view: View = to_plain(record)
    return view


def story_view(story: RestartStory) -> View:
    """Return a restart with why it happened: the record's fields first, then the story's."""
    view: View = to_plain(story)
    record: View = view.pop("restart")
    return {"id": record.pop("id"), "explanation": view.pop("explanation"), **record, **view}


def fate_view(fate: Fate) -> View:
    """Return what became of a write or request."""
    view: View = to_plain(fate)
    return view


def checkpoint_view(checkpoint: StoredCheckpoint) -> View:
    """Return a checkpoint: what it says, its signed note, and the proof that the one before is its beginning."""
    return {
        "size": checkpoint.tree_size,
        "position": checkpoint.position,
        "root": checkpoint.root,
        "sealed_at": to_plain(checkpoint.sealed_at),
        "exported_at": to_plain(checkpoint.exported_at),
        "previous_size": checkpoint.previous_size,
        "consistency": list(checkpoint.consistency),
        "note": checkpoint.note,
    }


def workspace_view(reader: Reader, stored: StoredWorkspace) -> View:
    """Return a workspace with its numbers; for a page of them see ``workspace_row``."""
    policies = reader.policies()
    return workspace_row(stored, policies, crash_loops(reader, [stored], policies))


def workspace_row(stored: StoredWorkspace, policies: Policies, loops: Mapping[str, CrashLoop]) -> View:
    """Return a workspace as a list has it, given the policies and loops that were read once for all of them."""
    state = stored.state
    registration = state.registration
    view = {
        "id": state.workspace,
        "state": stored.phase,
        "unserved_since": stored.unserved_since,
        "fleet": registration.fleet if registration else None,
        "labels": registration.labels if registration else {},
        "executor": registration.executor if registration else None,
        "target": masked(registration.target) if registration else {},
        "hold": state.hold,
        "pending_writes": state.pending_writes,
        "pending_requests": state.pending_requests,
        "due_at": stored.due_at,
        "due_at_latest": None if stored.due_at is None else latest_due(state, policies),
        "next_try_at": state.next_try_at,
        "restart": _restart(state),
        "running_cycle": _running(stored),
        "last_cycle": _last_cycle(state),
        "crash_looping": state.workspace in loops,
        "crash_loop": loops.get(state.workspace),
        "fence": state.fence,
        "version": state.version,
    }
    in_force = policy_in_force(state, policies)
    plain: View = to_plain(view)
    return plain | {
        "policy": render_policy(registration.policy if registration else PolicyPatch()),
        "policy_in_force": render_policy(in_force),
        "policy_version": in_force.version,
    }


def workspace_then(stored: StoredWorkspace, moment: Moment, loops: Mapping[str, CrashLoop]) -> View:
    """Return a workspace as it was: ``at`` that instant, after the event at ``position``."""
    row = workspace_row(stored, moment.policies, loops)
    return row | {"at": format_instant(moment.at), "position": moment.position}


def policy_view(policies: Policies, fleet: str | None, own: tuple[str, PolicyPatch] | None = None) -> View:
    """Return a layer, what is in force with it, and which layer each number comes from; the nearest wins.

    ``own``: of a workspace of ``fleet``, by its id and what it says itself; else of the fleet, or (None) of all.
    ``version`` is that of what is in force.
    """
    fleet_layer = DEFAULT_FLEET if fleet is None else fleet
    nearest = PolicyPatch() if own is None else own[1]
    in_force = policies.in_force(fleet_layer, nearest)
    if own is None:
        scope = DEFAULT_SCOPE if fleet is None else fleet_scope(fleet)
        layer = policies.layers.get(scope)
        said = layer.policy if layer else PolicyPatch()
    else:
        scope, said = f"workspace:{own[0]}", nearest
    origins: dict[str, str] = {}
    for name in (SETTINGS_SCOPE, DEFAULT_SCOPE, fleet_scope(fleet_layer)):
        if name in policies.layers:
            origins |= dict.fromkeys(render_policy(policies.layers[name].policy), name)
    origins |= dict.fromkeys(render_policy(nearest), "workspace")
    return {
        "scope": scope,
        "version": in_force.version,
        "policy": render_policy(said),
        "in_force": render_policy(in_force),
        "from": origins,
    }


def _restart(state: WorkspaceState) -> View | None:
    """Return the unsettled restart; its running cycle is shown beside it."""
    restart = state.restart
    if restart is None:
        return None
    names = ("id", "cause", "kind", "from_position", "to_position", "queued_at", "due_at", "ready_at", "retrying")
    return {name: getattr(restart, name) for name in names}


def _running(stored: StoredWorkspace) -> View | None:
    """Return the open cycle, and until when its worker has the right to it."""
    cycle, lease = stored.state.cycle, stored.lease
    if cycle is None:
        return None
    until = {"lease_until": lease.until if lease else None}
    names = ("id", "worker", "attempt", "iteration", "started_at")
    return {name: getattr(cycle, name) for name in names} | until | {"shadow": cycle.shadow}


def _last_cycle(state: WorkspaceState) -> View | None:
    if state.last_cycle is None:
        return None
    ended_at = None if state.cycle is not None else state.last_end_at
    return {"id": state.last_cycle, "started_at": state.last_start_at, "ended_at": ended_at}


def summary_view(scope: Scope, found: Summary) -> View:
    """Return the sums over a scope, which is named first."""
    view: View = to_plain(found)
    return {"scope": to_plain(scope), **view}


def failures_view(found: Failures) -> View:
    """Return how often cycles failed, by kind, and the newest failures."""
    counts: View = to_plain(found.counts)
    return {"items": [_failure(event) for event in found.newest], **counts}


def hot_files_view(found: HotFiles) -> View:
    """Return files by how often they were written."""
    return {"items": to_plain(found.files), "complete": found.complete}


def _failure(event: Recorded) -> View:
    kind = getattr(event.data, "error_kind", None) or getattr(event.data, "reason", None)
    envelope = {name: getattr(event, name) for name in ("position", "id", "recorded_at", "workspace", "type")}
    names = ("restart", "cycle", "message", "retry_at", "next_try_at")
    told = {name: getattr(event.data, name, None) for name in names}
    view: View = to_plain({**envelope, "kind": kind, **told})
    return view


def key_view(key: StoredKey, now: datetime) -> View:
    """Return what is shown of a key: not its digest."""
    shown = {name: getattr(key, name) for name in StoredKey.__dataclass_fields__ if name != "digest"}
    state = "revoked" if key.revoked_at is not None else "live" if key.is_live(now) else "expired"
    plain: View = to_plain({**shown, "scopes": list(key.scopes), "state": state})
    return plain
