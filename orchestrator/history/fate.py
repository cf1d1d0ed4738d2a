"""What became of one write or request: covered, waived, recorded, or pending and until when at the latest."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import msgspec

from orchestrator.domain import events as ev
from orchestrator.domain.due import window_due
from orchestrator.domain.explain import FateFacts, FateStatus, Unserved, explain_fate
from orchestrator.domain.policy import Action, Policies
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import Ends, Phase, WorkspaceState
from orchestrator.errors import NotFound
from orchestrator.ports.store import CoreReader, Waived
from orchestrator.ports.workspaces import StoredWorkspace

_HAVE_FATES = (ev.FileWritten, ev.RestartRequested)
_FINEST = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of a write (``path``, ``op``, ``action``) or of a request (``trigger``, ``reason``).

    ``final``: it will never change. ``restart`` and ``cycle`` cover it, or hold it while pending.
    ``start_waited_ms`` is from ``recorded_at`` to the start of the covering cycle, ``waited_ms`` to its success.
    ``due_at``: while pending, its restart is queued at the latest then; None while held or once a restart
    has it, whose ``ready_at`` says from when it may start.
    """

    id: str
    workspace: str
    position: int
    type: str
    recorded_at: datetime
    path: str | None
    op: ev.Operation | None
    action: Action | None
    trigger: ev.Trigger | None
    reason: str | None
    status: FateStatus
    final: bool
    explanation: str = ""
    restart: str | None = None
    restart_state: RestartState | None = None
    cycle: str | None = None
    started_at: datetime | None = None
    covered_at: datetime | None = None
    start_waited_ms: int | None = None
    waited_ms: int | None = None
    shadow: bool = False
    due_at: datetime | None = None
    ready_at: datetime | None = None
    held: bool = False
    waived_at: datetime | None = None
    waived_by: str | None = None
    waived_reason: ev.Waiver | None = None
    rule: str | None = None


def fate_of(reader: CoreReader, write: str) -> Fate:
    """Return what became of a write or request, by our id (``evt_...``). Raises ``NotFound`` for any other id."""
    event = reader.event(write)
    if event is None or not isinstance(event.data, _HAVE_FATES):
        raise unknown_write(write)
    record = None if _is_recorded_only(event) else reader.restart_holding(event.workspace or "", event.position)
    return _fate_held(_Rows(reader), event, record)


def unknown_write(write: str) -> NotFound:
    """Return the error for an id that is none of a write or request."""
    return NotFound(f"write {write!r} does not exist; give the id (evt_...) that its acceptance was answered with")


def fates_of(reader: CoreReader, writes: Collection[str]) -> dict[str, Fate]:
    """Return what became of some writes and requests, by id; other ids are left out.

    Two statements for all that are covered or recorded; what is pending adds its workspace's row and the policies,
    each once.
    """
    asked = [event for event in reader.events_by_id(writes).values() if isinstance(event.data, _HAVE_FATES)]
    holders = reader.restarts_holding([event.position for event in asked if not _is_recorded_only(event)])
    rows = _Rows(reader)
    return {event.id: _fate_held(rows, event, holders.get(event.position)) for event in asked}


class _Rows:
    """What several fates need of a reader, read once."""

    def __init__(self, reader: CoreReader) -> None:
        self.reader = reader
        self._stored: dict[str, StoredWorkspace] = {}

    @cached_property
    def policies(self) -> Policies:
        return self.reader.policies()

    def workspace(self, workspace: str) -> StoredWorkspace:
        if workspace not in self._stored:
            unknown = StoredWorkspace(state=WorkspaceState(workspace=workspace), due_at=None)
            self._stored[workspace] = self.reader.workspace(workspace) or unknown
        return self._stored[workspace]


def _is_recorded_only(event: ev.Recorded) -> bool:
    return getattr(event.data, "action", None) is Action.RECORD


def _fate_held(rows: _Rows, event: ev.Recorded, record: RestartProjection | None) -> Fate:
    if _is_recorded_only(event):
        rule = getattr(event.data, "rule", None)
        facts = FateFacts(status=FateStatus.RECORDED, rule=rule)
        return replace(_fate(event, FateStatus.RECORDED), rule=rule, explanation=explain_fate(facts))
    if record is not None and record.state is RestartState.SUCCEEDED:
        return _covered(event, record)
    workspace = event.workspace or ""
    stored = rows.workspace(workspace)
    if event.position > stored.state.settled_to:
        return _pending(event, stored, rows.policies)
    waived = rows.reader.waived(workspace, event.position)
    if waived is None:
        raise RuntimeError(f"{event.id} at {event.position} is settled, but no restart and no waiver holds it")
    return _waived(event, waived, rows.reader.event(waived.event))


def _fate(event: ev.Recorded, status: FateStatus) -> Fate:
    data = event.data
    written = data if isinstance(data, ev.FileWritten) else None
    asked = data if isinstance(data, ev.RestartRequested) else None
    return Fate(
        id=event.id,
        workspace=event.workspace or "",
        position=event.position,
        type=event.type,
        recorded_at=event.recorded_at,
        path=written.path if written else None,
        op=written.op if written else None,
        action=written.action if written else None,
        trigger=asked.trigger if asked else None,
        reason=asked.reason if asked else None,
        rule=written.rule if written else None,
        status=status,
        final=status is not FateStatus.PENDING,
    )


def _covered(event: ev.Recorded, record: RestartProjection) -> Fate:
    facts = FateFacts(
        status=FateStatus.COVERED,
        is_request=isinstance(event.data, ev.RestartRequested),
        restart=record.id,
        cycle=record.cycle,
        shadow=record.shadow,
        covered_after_ms=_since(event, record.ended_at),
    )
    return replace(
        _fate(event, FateStatus.COVERED),
        restart=record.id,
        restart_state=record.state,
        cycle=record.cycle,
        started_at=record.started_at,
        covered_at=record.ended_at,
        start_waited_ms=_since(event, record.started_at),
        waited_ms=_since(event, record.ended_at),
        shadow=record.shadow,
        explanation=explain_fate(facts),
    )


def _waived(event: ev.Recorded, waived: Waived, waiver: ev.Recorded | None) -> Fate:
    restart: str | None = getattr(waiver.data, "restart", None) if waiver else None
    facts = FateFacts(
        status=FateStatus.WAIVED,
        restart=restart,
        waived_by=waived.actor,
        removed=waived.reason is ev.Waiver.WORKSPACE_REMOVED,
    )
    return replace(
        _fate(event, FateStatus.WAIVED),
        restart=restart,
        waived_at=waived.at,
        waived_by=waived.actor,
        waived_reason=waived.reason,
        explanation=explain_fate(facts),
    )


def unserved_of(stored: StoredWorkspace) -> Unserved | None:
    """Return what nobody serves of a workspace whose restart waits for it."""
    registration = stored.state.registration
    if stored.phase is not Phase.UNCLAIMABLE or stored.unserved_since is None or registration is None:
        return None
    return Unserved(executor=registration.executor, pool=registration.pool, since=stored.unserved_since)


def _pending(event: ev.Recorded, stored: StoredWorkspace, policies: Policies) -> Fate:
    state, restart = stored.state, stored.state.restart
    running = restart is not None and restart.cycle is not None
    held = state.hold is not None
    inside = restart is not None and event.position <= restart.to_position
    # A restart that has not started takes along whatever waits when it does.
    with_restart = restart if restart is not None and (inside or not running) else None
    ready_at = with_restart.ready_at if with_restart and not running and not held else None
    due_at = None if restart is not None or held else latest_due(state, policies)
    fate = replace(
        _fate(event, FateStatus.PENDING),
        restart=with_restart.id if with_restart else None,
        restart_state=_state_of(state) if with_restart else None,
        cycle=restart.cycle.id if restart and restart.cycle and inside else None,
        started_at=restart.cycle.started_at if restart and restart.cycle and inside else None,
        due_at=due_at,
        ready_at=ready_at,
        held=held,
    )
    facts = FateFacts(
        status=FateStatus.PENDING,
        restart=restart.id if restart else None,
        restart_state=fate.restart_state,
        cycle=fate.cycle,
        due_at=due_at,
        ready_at=ready_at,
        held=state.hold.reason if state.hold else None,
        unserved=unserved_of(stored),
    )
    return replace(fate, explanation=explain_fate(facts))


def latest_due(state: WorkspaceState, policies: Policies) -> datetime | None:
    """Return when the window is due at the latest, however many writes still come: its due without quiet."""
    window = state.window
    if window.writes is not None:
        never = msgspec.structs.replace(window.writes, quiet=Ends())
        window = msgspec.structs.replace(window, writes=never)
    found = window_due(msgspec.structs.replace(state, window=window), policy_in_force(state, policies))
    return found.at if found else None


def _state_of(state: WorkspaceState) -> RestartState:
    if state.cycle is not None:
        return RestartState.RUNNING
    return RestartState.RETRYING if state.restart and state.restart.retrying else RestartState.QUEUED


def _since(event: ev.Recorded, at: datetime | None) -> int | None:
    return None if at is None else max(0, (at - event.recorded_at) // _FINEST)
