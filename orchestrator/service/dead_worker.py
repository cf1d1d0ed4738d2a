"""What follows from a worker's death: each of its open cycles is abandoned, and goes on by the normal rules.

Only who made the worker's name may call it dead, for nobody else can know: the parent that saw its child end, and the
next ``up`` on the data folder whose lock the dead one held. Whatever its commands left running has been ended before.
"""

from __future__ import annotations

import structlog

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import Recorded
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import DECIDES, Unit
from orchestrator.ports.workspaces import OpenCycle
from orchestrator.service.announce import announce
from orchestrator.service.append import BY_ITSELF, carry_out
from orchestrator.service.fold import fold_if_due

_log = structlog.get_logger("orchestrator")


def abandon_cycles_of(store: CoreStore, ids: Ids, worker: str) -> list[str]:
    """Abandon what a dead worker left open; return the workspaces.

    A commit that it had sent as it died may still come: whoever buries it looks again a moment later. Raises
    ``StorageUnavailable``: what is done by then stays done, and the next call goes on.
    """
    abandoned: list[str] = []
    while found := _cycles_of(store, worker):
        for cycle in found:
            _abandon(store, ids, cycle)
            abandoned.append(cycle.workspace)
    _log.info("worker.buried", worker=worker, cycles=len(abandoned))
    return abandoned


def _cycles_of(store: CoreStore, worker: str) -> list[OpenCycle]:
    with store.read() as reader:
        return reader.cycles_of(worker)


def _abandon(store: CoreStore, ids: Ids, cycle: OpenCycle) -> None:

    def step(tx: Transaction) -> list[Recorded]:
        stored = tx.workspace(cycle.workspace)
        if stored is None:
            return []
        policies = tx.policies()
        command = cmd.AbandonDead(cycle=cycle.cycle, fence=cycle.fence)
        state, ended = carry_out(tx, stored.state, command, BY_ITSELF, ids, policies)
        _, folded = fold_if_due(tx, state, ids, policies, lease=None)
        return [*ended, *folded]

    announce(store.commit(Unit(name="bury", workspaces=(cycle.workspace,), step=step, asked=DECIDES, hurried=True)))
