"""The coalescer's look: fold what is due, release holds, rescue passed leases, ring for what may start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from orchestrator.domain import commands as cmd
from orchestrator.domain.due import due
from orchestrator.domain.events import Recorded
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import BrokerUnavailable, Unavailable
from orchestrator.ports import Doorbell, EventStore, Ids, Transaction
from orchestrator.service.announce import announce
from orchestrator.service.append import Author, carry_out, policy_of

_log = structlog.get_logger("orchestrator")

PAGE = 100
ROUNDS_MOST = 1_000
"""A tick looks at PAGE workspaces at a time; the bound only ends a tick that finds work without end."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What one look found: workspaces in which something was recorded, failed ones, and bells rung.

    ``next_at`` is the next instant at which there is something to do.
    """

    changed: int
    failed: int
    rung: int
    next_at: datetime | None
    now: datetime


def look(store: EventStore, doorbell: Doorbell, ids: Ids, *, free_slots: Callable[[], int]) -> Looked:
    """Look once. Two looks at a time are harmless: a row that one holds, the other passes over.

    Costs, idle: one statement each for what is due, what may start, the next instant and the tick's mark.
    Raises ``StorageUnavailable``; the next tick finds everything again.
    """
    changed, failed = 0, set[str]()
    for _ in range(ROUNDS_MOST):
        with store.read() as reader:
            found = [name for name in reader.due_workspaces(PAGE + len(failed)) if name not in failed]
        before = changed
        for workspace in found:
            try:
                changed += look_at(store, ids, workspace)
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 (one workspace's defect must not stop every other one)
                _log.exception("tick.failed", workspace=workspace)
                failed.add(workspace)
        if len(found) < PAGE or changed == before:
            break
    rung = _ring(store, doorbell, max(2, 2 * free_slots()))
    store.ticked()
    with store.read() as reader:
        return Looked(changed=changed, failed=len(failed), rung=rung, next_at=reader.next_instant(), now=reader.now())


def look_at(store: EventStore, ids: Ids, workspace: str) -> bool:
    """Look at one workspace in one transaction; return whether anything was recorded."""
    with store.write([workspace], skip_locked=True) as tx:
        stored = tx.workspace(workspace)
        if stored is None:
            return False
        _, recorded = fold_if_due(tx, stored.state, ids)
    announce(recorded)
    return bool(recorded)


def fold_if_due(tx: Transaction, state: WorkspaceState, ids: Ids) -> tuple[WorkspaceState, list[Recorded]]:
    """Carry out a tick of one workspace inside a transaction that holds it."""
    policies = tx.policies()
    found = due(state, policy_of(state, policies))
    may_fold = state.hold is not None or (found is not None and found.at <= tx.now)
    files = tx.count_paths(state.workspace, state.from_position, state.last_position) if may_fold else 0
    return carry_out(tx, state, cmd.Tick(restart_id=ids.new("rst"), files=files), Author(), ids, policies)


def _ring(store: EventStore, doorbell: Doorbell, most: int) -> int:
    """Ring for what may start, the longest ready first. Bells expire before the next ones are sent."""
    with store.read() as reader:
        ready = reader.ready_workspaces(most)
    for rung, workspace in enumerate(ready):
        try:
            doorbell.ring(workspace)
        except BrokerUnavailable as error:
            _log.warning("bell.not_rung", workspace=workspace, waiting=len(ready) - rung, error=str(error))
            return rung
    return len(ready)
