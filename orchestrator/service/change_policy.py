"""Change a policy layer: recorded and stored in one small transaction; the open windows of its scope follow it."""

from __future__ import annotations

import structlog

from orchestrator.domain.events import NewEvent, PolicyChanged, Recorded
from orchestrator.domain.policy import SETTINGS_SCOPE, Policy, PolicyLayer, PolicyPatch
from orchestrator.errors import OrchestratorError, PreconditionFailed
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.service.announce import announce
from orchestrator.service.append import SYSTEM, append_all
from orchestrator.service.recompute import recompute

_log = structlog.get_logger("orchestrator")

_PAGES_AT_ONCE = 20
"""So many pages of open windows follow before the change is answered; the tick sees to the others."""


def change_policy(
    store: CoreStore,
    ids: Ids,
    *,
    scope: str,
    patch: PolicyPatch,
    actor: str,
    expected_version: int | None = None,
) -> PolicyLayer:
    """Replace the layer ``scope`` (``settings``, ``default`` or ``fleet:NAME``) and return it.

    The same layer again records nothing. Raises ``PreconditionFailed`` if ``expected_version`` is given
    and is not the layer's (0: the layer does not exist).
    """

    def step(tx: Transaction) -> tuple[PolicyLayer, list[Recorded]]:
        layers = tx.policies().layers
        before = layers.get(scope)
        _check_version(scope, before.version if before else 0, expected_version)
        if before is not None and before.policy == patch:
            return before, []
        version = 1 + max((layer.version for layer in layers.values()), default=0)
        layer = PolicyLayer(scope=scope, policy=patch, version=version)
        changed = PolicyChanged(scope=scope, policy=patch, policy_version=version)
        event = NewEvent(id=ids.new("evt"), workspace=None, version=None, data=changed, actor=actor)
        recorded = append_all(tx, [event], ids)
        tx.save_policy(layer)
        return layer, recorded

    layer, recorded = store.commit(Unit(name="policy", workspaces=(), step=step))
    announce(recorded)
    if recorded:
        _follow(store, scope)
    return layer


def note_floor(store: CoreStore, ids: Ids, floor: Policy) -> PolicyLayer:
    """Record the numbers that settings give, if they differ from the last recorded (CONTRACT section 2)."""
    values = {name: getattr(floor, name) for name in PolicyPatch.__struct_fields__}
    return change_policy(store, ids, scope=SETTINGS_SCOPE, patch=PolicyPatch(**values), actor=SYSTEM)


def _check_version(scope: str, current: int, expected: int | None) -> None:
    if expected is not None and expected != current:
        raise PreconditionFailed(f"policy {scope!r} is at version {current}, not {expected}; read it again")


def _follow(store: CoreStore, scope: str) -> None:
    """Let the open windows follow what is committed already: what cannot be done now the tick does."""
    try:
        recompute(store, pages=_PAGES_AT_ONCE)
    except OrchestratorError as error:
        _log.warning("recompute.left", scope=scope, error=str(error))
