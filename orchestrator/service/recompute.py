"""Let the due instants of open windows follow a changed policy, page by page: nobody waits for all of them.

The change itself is one small transaction, which notes that its scope is to be followed. Each page is one too, and
notes how far it came: whoever dies in between, the next tick goes on there. A window that is written to, queued or
released meanwhile is due by the new numbers anyway, as every transaction reads the policies under the append lock.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from orchestrator.domain.due import due
from orchestrator.domain.policy import Policies, fleet_scope
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.errors import Unavailable
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import CoreStore
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.service.append import save

_log = structlog.get_logger("orchestrator")

WINDOWS_A_PAGE = 50
"""How many rows a page locks, and for how many everybody's writes wait: a few milliseconds (measured)."""


def fleet_of_scope(scope: str) -> str | None:
    """Return the fleet of which a layer speaks; None for one that speaks of all workspaces."""
    return scope.removeprefix(fleet_scope("")) if scope.startswith(fleet_scope("")) else None


def recompute(store: CoreStore, *, pages: int) -> bool:
    """Go on with what changes of policies left, so many pages; return whether more is left.

    Raises ``Unavailable``; the next one goes on where this one came to.
    """
    for _ in range(pages):
        with store.read() as reader:
            unfinished = reader.recomputations()
            if not unfinished:
                return False
            oldest = unfinished[0]
            names = reader.open_windows(fleet_of_scope(oldest.scope), oldest.to, WINDOWS_A_PAGE)
        _recompute_page(store, oldest, names)
    return True


def save_if_moved(tx: Transaction, stored: StoredWorkspace, policies: Policies) -> None:
    """Write a row whose window is due at another instant by the policies of now."""
    found = due(stored.state, policy_in_force(stored.state, policies))
    if (found.at if found else None) != stored.due_at:
        save(tx, [stored.state], policies)


def _recompute_page(store: CoreStore, done: Recomputation, names: Sequence[str]) -> None:
    """Let a page follow; a row of it that cannot be read stops no other, and is found by whoever needs it."""
    to = names[-1] if len(names) == WINDOWS_A_PAGE else None
    try:
        store.commit(_unit(names, done, to))
        return
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 (whose it is is found one by one)
        _log.warning("recompute.split", scope=done.scope, workspaces=len(names), error=repr(error))
    for name in names:
        try:
            store.commit(_unit([name], done, done.to))
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 (one workspace's defect must not stop every other one)
            _log.exception("recompute.failed", scope=done.scope, workspace=name)
    store.commit(_unit((), done, to))


def _unit(names: Sequence[str], done: Recomputation, to: str | None) -> Unit[None]:
    def step(tx: Transaction) -> None:
        policies = tx.policies()
        for name in names:
            stored = tx.workspace(name)
            if stored is not None:
                save_if_moved(tx, stored, policies)
        tx.note_recomputed(done, to)

    return Unit(name="recompute", workspaces=tuple(names), step=step, weight=len(names))
