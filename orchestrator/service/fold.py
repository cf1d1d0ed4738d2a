"""Folding one workspace's window where it is due, inside a transaction that holds it."""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain import commands as cmd
from orchestrator.domain.due import due
from orchestrator.domain.events import Recorded
from orchestrator.domain.policy import Policies
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports.store import Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.workspaces import Lease
from orchestrator.service.append import BY_ITSELF, carry_out


def fold_if_due(
    tx: Transaction, state: WorkspaceState, ids: Ids, policies: Policies, *, lease: Lease | None
) -> tuple[WorkspaceState, list[Recorded]]:
    """Carry out a tick of one workspace inside a transaction that holds it, and its open cycle's lease."""
    files, lease_until = 0, lease.until if lease else None
    if _may_fold(state, policies, tx.now, lease_until):
        files = tx.count_paths(state.workspace, state.from_position, state.last_position, state.waits_since)
    command = cmd.Tick(restart_id=ids.new("rst"), files=files, lease_until=lease_until)
    return carry_out(tx, state, command, BY_ITSELF, ids, policies)


def _may_fold(state: WorkspaceState, policies: Policies, now: datetime, lease_until: datetime | None) -> bool:
    """Return whether a tick may queue a restart: now, or after the release or the rescue that it brings."""
    if state.hold is not None or (lease_until is not None and lease_until <= now):
        return True
    found = due(state, policy_in_force(state, policies))
    return found is not None and found.at <= now
