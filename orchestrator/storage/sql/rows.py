"""Values of the core to rows and back: pure, and the only place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.encoding import (
    canonical_json,
    decode_data,
    decode_listed_projection,
    decode_old_state,
    decode_projection,
    decode_registration,
    decode_state,
    encode_data,
    encode_state,
    format_instant,
    unreadable_event,
)
from orchestrator.domain.policy import PolicyLayer, PolicyPatch
from orchestrator.domain.restart_projection import RestartProjection, restart_of
from orchestrator.domain.snapshot import Snapshot
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import Unreadable
from orchestrator.ports.inquiries import PastEvent

Row = dict[str, Any]
_DATA = StoredEvent.__struct_fields__.index("data")
_DAMAGED = (msgspec.MsgspecError, LookupError, TypeError, ValueError)
PROJECTED_FIELDS = RestartProjection.__struct_fields__


def sourced(event: ev.NewEvent) -> ev.NewEvent:
    """Return the event with its ``source``; for a lone ``source_id`` that is the actor (CONTRACT section 3)."""
    if event.source_id is None or event.source is not None:
        return event
    return replace(event, source=event.actor)


def recorded(event: ev.NewEvent, *, position: int, recorded_at: datetime) -> ev.Recorded:
    """Return the event as the log holds it."""
    return ev.Recorded(
        id=event.id,
        workspace=event.workspace,
        version=event.version,
        data=event.data,
        actor=event.actor,
        source=event.source,
        source_id=event.source_id,
        occurred_at=event.occurred_at,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        traceparent=event.traceparent,
        position=position,
        recorded_at=recorded_at,
        schema=event.data.SCHEMA,
    )


def subject_of(data: ev.EventData) -> str | None:
    """Return what an event can be looked up by: its path, the cycle it starts, or the restart it speaks of."""
    if isinstance(data, ev.FileWritten):
        return data.path
    if isinstance(data, ev.CycleStarted):
        return data.cycle
    if isinstance(data, ev.WritesWaived | ev.LateResultRejected):
        return data.restart
    return restart_of(data)


def event_row(event: ev.Recorded) -> Row:
    """Return the columns of an event but its position, which the database may draw by itself."""
    return {
        "id": event.id,
        "workspace": event.workspace,
        "version": event.version,
        "type": event.data.type_name(),
        "schema": event.data.SCHEMA,
        "subject": subject_of(event.data),
        "data": encode_data(event.data),
        "actor": event.actor,
        "source": event.source,
        "source_id": event.source_id,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "occurred_at": event.occurred_at,
        "recorded_at": event.recorded_at,
        "traceparent": event.traceparent,
    }


def event_of(row: Mapping[Any, Any]) -> ev.Recorded:
    """Return the event of a row."""
    return ev.Recorded(
        id=row["id"],
        workspace=row["workspace"],
        version=row["version"],
        data=_data_of(
            row["position"], row["id"], row["type"], row["schema"], row["data"], of_nobody=row["workspace"] is None
        ),
        actor=row["actor"],
        source=row["source"],
        source_id=row["source_id"],
        occurred_at=row["occurred_at"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
        position=row["position"],
        recorded_at=row["recorded_at"],
        schema=row["schema"],
    )


def _data_of(position: int, event: str, kind: str, schema: int, data: str, *, of_nobody: bool = False) -> ev.EventData:
    try:
        return decode_data(kind, schema, data, of_nobody=of_nobody)
    except Unreadable as error:
        raise unreadable_event(position, event, error) from None


TOLD = ("position", "id", "type", "schema", "recorded_at", "data", "actor", "correlation_id")
"""The columns that the story of a restart needs of its events."""


def told_event_of(workspace: str, row: sa.Row[*tuple[Any, ...]]) -> ev.Recorded:
    """Return a workspace's event of a row of the columns ``TOLD``."""
    position, event, kind, schema, recorded_at, data, actor, correlation_id = row
    return ev.Recorded(
        id=event,
        workspace=workspace,
        version=None,
        data=_data_of(position, event, kind, schema, data),
        actor=actor,
        correlation_id=correlation_id,
        position=position,
        recorded_at=recorded_at,
        schema=schema,
    )


PAST = TOLD[:6]
"""The columns that folding needs of an event."""


def past_event_of(row: sa.Row[*tuple[Any, ...]]) -> PastEvent:
    """Return the event of a row of the columns ``PAST``."""
    position, event, kind, schema, recorded_at, data = row
    return PastEvent(position, recorded_at, _data_of(position, event, kind, schema, data))


def stored_event_of(event: ev.Recorded, data: str) -> StoredEvent:
    """Return the event as a database keeps it; ``data`` is the canonical text of its data."""
    return StoredEvent(
        position=event.position,
        id=event.id,
        workspace=event.workspace,
        version=event.version,
        type=event.type,
        schema=event.schema,
        recorded_at=format_instant(event.recorded_at),
        occurred_at=None if event.occurred_at is None else format_instant(event.occurred_at),
        actor=event.actor,
        source=event.source,
        source_id=event.source_id,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        data=msgspec.Raw(data),
    )


def stored_events_of(found: Iterable[Sequence[Any]]) -> list[StoredEvent]:
    """Return the events of rows whose columns are those of ``StoredEvent``, in its order, instants as text."""
    make: Callable[..., StoredEvent] = StoredEvent
    return [make(*row[:_DATA], msgspec.Raw(row[_DATA])) for row in found]


def _unreadable(table: str, key: str, why: Exception) -> Unreadable:
    return Unreadable(f"the row {key!r} of {table} cannot be read by this version: {why}", table=table, id=key)


def snapshot_row(snapshot: Snapshot) -> Row:
    """Return the columns of a snapshot."""
    state = snapshot.state
    return {"workspace": state.workspace, "position": snapshot.position, "state": encode_state(state)}


REGISTERED_BY = "registered_by"
"""The column of a snapshot's row that holds the data of the event that its state was registered by."""


def snapshot_of(row: sa.RowMapping) -> Snapshot:
    """Return the snapshot of a row with its column ``REGISTERED_BY``. Raises ``Unreadable``."""
    try:
        return Snapshot(position=row["position"], state=_state_of(row["state"], row[REGISTERED_BY]))
    except _DAMAGED as error:
        raise _unreadable("workspace_snapshots", f"{row['workspace']} at {row['position']}", error) from None


def _state_of(text: str, registered_by: str | None) -> WorkspaceState:
    """Return a snapshot's state. Only today's shape says by which event it was registered."""
    if registered_by is not None:
        return decode_state(text, decode_registration(registered_by))
    if '"registration_position":' in text:
        return decode_state(text, None)
    return decode_old_state(text, registration_position=0)


def restart_row(record: RestartProjection) -> Row:
    """Return the columns of a restart."""
    pairs = ((name, getattr(record, name)) for name in PROJECTED_FIELDS)
    return {name: value.value if isinstance(value, Enum) else value for name, value in pairs}


def restart_projection_of(row: Sequence[Any]) -> RestartProjection:
    """Return the restart of a row of the columns ``PROJECTED_FIELDS``, in that order. Raises ``Unreadable``."""
    try:
        return decode_projection(dict(zip(PROJECTED_FIELDS, row, strict=True)))
    except _DAMAGED as error:
        raise _unreadable("restarts", row[0], error) from None


def restart_projection_of_text(text: str) -> RestartProjection:
    """Return the restart of such a row as a JSON list. Raises ``Unreadable``."""
    try:
        return decode_listed_projection(text)
    except _DAMAGED as error:
        raise _unreadable("restarts", text.removeprefix('["').partition('"')[0], error) from None


def policy_row(layer: PolicyLayer) -> Row:
    """Return the columns of a policy layer that was changed: no open window follows it yet."""
    policy = canonical_json(layer.policy)
    return {"scope": layer.scope, "policy": policy, "version": layer.version, "recomputed_to": ""}


def policy_layer_of(row: sa.RowMapping) -> PolicyLayer:
    """Return the policy layer of a row. Raises ``Unreadable``."""
    try:
        patch = msgspec.json.decode(row["policy"], type=PolicyPatch)
    except _DAMAGED as error:
        raise _unreadable("policies", row["scope"], error) from None
    return PolicyLayer(scope=row["scope"], policy=patch, version=row["version"])
