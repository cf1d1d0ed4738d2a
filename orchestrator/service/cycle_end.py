"""The end of a cycle that this worker has carried out, and how a transaction records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.ports.store import EventFilter, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.service.append import BY_ITSELF, carry_out
from orchestrator.service.execute import Cancelled
from orchestrator.service.fold import fold_if_due
from orchestrator.service.lease import HeldLease

Result = cmd.Success | cmd.Failure | Cancelled

_RECORDED_AS: Mapping[type, type[ev.EventData]] = {
    cmd.Success: ev.CycleSucceeded,
    cmd.Failure: ev.CycleFailed,
    Cancelled: ev.CycleAbandoned,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CycleEnd:
    """What a cycle came to. ``lease`` is kept and renewed until that is recorded."""

    workspace: str
    started: ev.CycleStarted
    result: Result
    lease: HeldLease

    def records(self) -> EventFilter:
        """Return where an event that records this end is found, if there is one: see ``is_own``."""
        types = (_RECORDED_AS[type(self.result)].type_name(), ev.LateResultRejected.type_name())
        return EventFilter(
            after=self.started.to_position, workspace=self.workspace, correlation_id=self.started.restart, types=types
        )

    def is_own(self, data: ev.EventData) -> bool:
        """Say whether the cycle's own worker recorded this: another one rescues a cycle, or removes its workspace."""
        if isinstance(data, ev.CycleAbandoned):
            return data.cycle == self.started.cycle and data.reason is ev.Abandonment.SHUTDOWN
        return getattr(data, "cycle", None) == self.started.cycle


def end_held(tx: Transaction, end: CycleEnd, ids: Ids) -> list[ev.Recorded] | None:
    """Record an end, and fold what has come due meanwhile; None where the transaction does not hold its workspace."""
    stored = tx.workspace(end.workspace)
    if stored is None:
        return None
    started, result = end.started, end.result
    command: cmd.FinishCycle | cmd.ShutDownCycle
    if isinstance(result, Cancelled):
        command = cmd.ShutDownCycle(restart=started.restart, cycle=started.cycle, fence=started.fence)
    else:
        command = cmd.FinishCycle(restart=started.restart, cycle=started.cycle, fence=started.fence, result=result)
    policies = tx.policies()
    state, ended = carry_out(tx, stored.state, command, BY_ITSELF, ids, policies)
    lease = tx.leases([end.workspace]).get(end.workspace)
    _, folded = fold_if_due(tx, state, ids, policies, lease=lease)
    return [*ended, *folded]
