"""A workspace's rows in three tables to its value and back: folded state, registration, lease.

A state is kept in one of two shapes. Today's lies in ``folded_state`` beside an empty ``state``, which the code of
revision 0002 cannot read: it fails, where it would otherwise find nothing pending. The old shape lies in ``state``,
with the registration inside of it and its lease in ``lease_until``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import msgspec
import sqlalchemy as sa

from orchestrator.domain.encoding import (
    canonical_json,
    decode_old_state,
    decode_state,
    encode_old_state,
    encode_state,
)
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration, WorkspaceState
from orchestrator.errors import Unreadable
from orchestrator.ports.workspaces import KeptRow, Lease, StoredWorkspace
from orchestrator.storage.sql.prepared import Prepared, one_of
from orchestrator.storage.sql.presence import IS_AWAY
from orchestrator.storage.sql.schema import executors_away, leases, registrations, workspaces

Row = dict[str, Any]
DAMAGED = (msgspec.MsgspecError, LookupError, TypeError, ValueError)
_REGISTRATIONS_KEPT = 256

REGISTERED = [column.label(f"registered_{column.name}") for column in registrations.c]
LEASED = [column.label(f"leased_{column.name}") for column in leases.c]
WITH_REGISTRATION = workspaces.outerjoin(registrations, registrations.c.workspace == workspaces.c.id)
WITH_ALL = WITH_REGISTRATION.outerjoin(leases, leases.c.workspace == workspaces.c.id)

_KEPT = (workspaces.c.id, workspaces.c.state, workspaces.c.folded_state, workspaces.c.due_at, workspaces.c.lease_until)


def _to_lock(dialect: str, *, skip_locked: bool) -> sa.Select[*tuple[Any, ...]]:
    wanted = sa.select(*_KEPT, *REGISTERED).select_from(WITH_REGISTRATION)
    named = wanted.where(one_of(workspaces.c.id, "names", dialect)).order_by(workspaces.c.id)
    return named.with_for_update(skip_locked=skip_locked, of=workspaces)


to_lock = {skips: Prepared(partial(_to_lock, skip_locked=skips)) for skips in (False, True)}
"""What a transaction reads of the workspaces ``names``: their states, not what follows from them, nor their leases,
which ingest never waits for. By whether rows that are locked are skipped."""
to_read: sa.Select[*tuple[Any, ...]] = sa.select(
    workspaces, *REGISTERED, *LEASED, executors_away.c.since.label("unserved_since")
).select_from(WITH_ALL.outerjoin(executors_away, IS_AWAY))
_UNDECODED = [
    sa.type_coerce(column, sa.types.NullType()).label(column.name)
    for column in (*workspaces.c, *REGISTERED, *(one for one in LEASED if one.name != "leased_until"))
]
to_compare: sa.Select[*tuple[Any, ...]] = sa.select(*_UNDECODED).select_from(WITH_ALL)
"""Everything as it is kept, but until when a lease lasts: renewals are no events."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A locked row. ``lease_until``: of a cycle that was leased in the row itself, as older versions do."""

    stored: StoredWorkspace
    is_old: bool
    lease_until: datetime | None


def same_cycle(before: Found, after: StoredWorkspace) -> bool:
    """Return whether one cycle was open before and still is."""
    earlier, now = before.stored.state.cycle, after.state.cycle
    return earlier is not None and now is not None and earlier.id == now.id


def is_registered_anew(before: Found | None, after: Found) -> bool:
    """Return whether the row of a workspace's registration is to be written."""
    if before is not None and before.is_old:
        return True
    position = before.stored.state.registration_position if before else 0
    return after.stored.state.registration_position != position


class RegistrationMoved(Exception):
    """The row of a registration is not the one that its workspace's row names: one was read before it changed."""

    def __init__(self) -> None:
        super().__init__("its registration is not the one that its state was folded with")


def fleet_of(state: WorkspaceState) -> str:
    """Return the workspace's fleet; empty if it was never registered."""
    return state.registration.fleet if state.registration else ""


def workspace_row(stored: StoredWorkspace, *, is_old: bool, lease_until: datetime | None) -> Row:
    """Return all columns of a workspace: every one but ``lease_until`` follows from its state and its due instant."""
    state = stored.state
    waiting = state.waiting_writes
    return {
        "id": state.workspace,
        "fleet": fleet_of(state),
        "version": state.version,
        "phase": state.phase.value,
        "state": encode_old_state(state) if is_old else "",
        "pending_first_at": waiting.first_at if waiting else None,
        "pending_last_at": waiting.last_at if waiting else None,
        "pending_count": state.pending_writes,
        "pending_requests": state.pending_requests,
        "due_at": stored.due_at,
        "ready_at": state.ready_at,
        "held_until": state.hold.until if state.hold else None,
        "fence": state.fence,
        "lease_until": lease_until,
        "folded_state": None if is_old else encode_state(state),
    }


def registration_row(state: WorkspaceState) -> Row | None:
    """Return the columns of a workspace's registration; None if it was never registered."""
    registration = state.registration
    if registration is None:
        return None
    return {
        "workspace": state.workspace,
        "position": state.registration_position,
        "fleet": registration.fleet,
        "executor": registration.executor,
        "pool": registration.pool,
        "labels": canonical_json(registration.labels),
        "target": canonical_json(registration.target),
        "policy": canonical_json(registration.policy),
    }


def lease_row(state: WorkspaceState, lease: Lease) -> Row:
    """Return the columns of a lease."""
    return {
        "workspace": state.workspace,
        "fleet": fleet_of(state),
        "cycle": lease.cycle,
        "fence": lease.fence,
        "worker": lease.worker,
        "until": lease.until,
    }


def found_of(row: Mapping[Any, Any]) -> Found:
    """Return a locked workspace of a row of ``to_lock``. Raises ``RegistrationMoved`` and ``Unreadable``."""
    is_old = row["folded_state"] is None
    stored = _readable(row, lambda: StoredWorkspace(state=_state_of(row), due_at=row["due_at"]))
    return Found(stored=stored, is_old=is_old, lease_until=row["lease_until"])


def workspace_of(row: Mapping[Any, Any]) -> StoredWorkspace:
    """Return the workspace of a row of ``to_read``. Raises ``Unreadable``."""

    def read() -> StoredWorkspace:
        state = _state_of(row)
        return StoredWorkspace(
            state=state,
            due_at=row["due_at"],
            lease=_lease_of(row, state),
            unserved_since=row["unserved_since"],
        )

    try:
        return _readable(row, read)
    except RegistrationMoved as error:
        raise unreadable(row["id"], error) from None


def lease_in_row(state: WorkspaceState, until: datetime) -> Lease | None:
    """Return the lease of a cycle that an older version started: the row says until when, the state what of."""
    cycle = state.cycle
    return Lease(cycle=cycle.id, fence=state.fence, worker=cycle.worker, until=until) if cycle else None


def _readable(row: Mapping[Any, Any], read: Callable[[], StoredWorkspace]) -> StoredWorkspace:
    try:
        return read()
    except DAMAGED as error:
        raise unreadable(row["id"], error) from None


def unreadable(workspace: str, why: object) -> Unreadable:
    """Return the error for a workspace whose rows cannot be read, and why."""
    text = f"the row {workspace!r} of workspaces cannot be read by this version: {why}"
    return Unreadable(text, table="workspaces", id=workspace)


def _state_of(row: Mapping[Any, Any]) -> WorkspaceState:
    registered_at = row["registered_position"] or 0
    if row["folded_state"] is None:
        return decode_old_state(row["state"], registration_position=registered_at)
    state = decode_state(row["folded_state"], _registration_of(row))
    if state.registration_position != registered_at:
        raise RegistrationMoved
    return state


def _registration_of(row: Mapping[Any, Any]) -> Registration | None:
    if row["registered_position"] is None:
        return None
    return _registration(*(row[f"registered_{name}"] for name in ("fleet", "executor", "labels", "target", "policy")))


@lru_cache(maxsize=_REGISTRATIONS_KEPT)
def _registration(fleet: str, executor: str, labels: str, target: str, policy: str) -> Registration:
    """Return what a registration's columns say; a workspace that is written to again and again decodes them once."""
    return Registration(
        fleet=fleet,
        labels=msgspec.json.decode(labels, type=dict[str, str]),
        executor=executor,
        target=msgspec.json.decode(target, type=dict[str, Any]),
        policy=msgspec.json.decode(policy, type=PolicyPatch),
    )


def _lease_of(row: Mapping[Any, Any], state: WorkspaceState) -> Lease | None:
    if state.cycle is None:
        return None
    if row["leased_cycle"] is not None:
        return Lease(
            cycle=row["leased_cycle"],
            fence=row["leased_fence"],
            worker=row["leased_worker"],
            until=row["leased_until"],
        )
    return None if row["lease_until"] is None else lease_in_row(state, row["lease_until"])


def kept_row(row: sa.RowMapping) -> KeptRow:
    """Return the rows of a row of ``to_compare``, whatever somebody has put into them."""
    is_old, in_row = row["folded_state"] is None, row["lease_until"] is not None
    own = {column.name: row[column.name] for column in workspaces.c if column.name != "lease_until"}
    said = _prefixed(row, "registered_")
    leased = _prefixed(row, "leased_")
    return KeptRow(
        workspace=_spelled(own),
        registration=None if is_old or said["workspace"] is None else _spelled(said),
        lease=None if leased["workspace"] is None else _spelled(leased),
        due_at=own["due_at"],
        is_old=is_old,
        is_leased_in_row=in_row,
    )


def _prefixed(row: sa.RowMapping, prefix: str) -> Row:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}


def spelled_workspace(stored: StoredWorkspace, like: KeptRow | None) -> KeptRow:
    """Return what the rows of a workspace must be, in the shape of those that are ``like`` them."""
    state = stored.state
    is_old, in_row = like is not None and like.is_old, like is not None and like.is_leased_in_row
    own = workspace_row(stored, is_old=is_old, lease_until=None)
    del own["lease_until"]
    said = None if is_old else registration_row(state)
    leased = None
    if state.cycle is not None and not in_row:
        cycle = state.cycle
        leased = lease_row(state, Lease(cycle=cycle.id, fence=state.fence, worker=cycle.worker, until=cycle.started_at))
        del leased["until"]
    return KeptRow(
        workspace=_spelled(own),
        registration=None if said is None else _spelled(said),
        lease=None if leased is None else _spelled(leased),
        due_at=stored.due_at,
        is_old=is_old,
        is_leased_in_row=in_row and state.cycle is not None,
    )


def _spelled(row: Mapping[str, Any]) -> str:
    try:
        return canonical_json(row)
    except (TypeError, ValueError):
        return repr(row)
