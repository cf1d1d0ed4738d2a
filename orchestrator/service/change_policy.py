"""Change a policy layer: recorded, stored, and the due instants of its open windows recomputed, in one transaction."""

from __future__ import annotations

from orchestrator.domain.events import NewEvent, PolicyChanged, Recorded
from orchestrator.domain.policy import SETTINGS_SCOPE, Policies, Policy, PolicyLayer, PolicyPatch, fleet_scope
from orchestrator.errors import PreconditionFailed
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.service.announce import announce
from orchestrator.service.append import SYSTEM, append_all, save


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
    fleet = scope.removeprefix("fleet:") if scope.startswith(fleet_scope("")) else None
    recorded: list[Recorded] = []
    with store.write_open_windows(fleet) as tx:
        layers = dict(tx.policies().layers)
        before = layers.get(scope)
        _check_version(scope, before.version if before else 0, expected_version)
        if before is not None and before.policy == patch:
            return before
        version = 1 + max((layer.version for layer in layers.values()), default=0)
        layer = PolicyLayer(scope=scope, policy=patch, version=version)
        changed = PolicyChanged(scope=scope, policy=patch, policy_version=version)
        event = NewEvent(id=ids.new("evt"), workspace=None, version=None, data=changed, actor=actor)
        recorded = append_all(tx, [event], ids)
        tx.save_policy(layer)
        _recompute_due(tx, Policies(layers=layers | {scope: layer}))
    announce(recorded)
    return layer


def note_floor(store: CoreStore, ids: Ids, floor: Policy) -> PolicyLayer:
    """Record the numbers that settings give, if they differ from the last recorded (CONTRACT section 2)."""
    values = {name: getattr(floor, name) for name in PolicyPatch.__struct_fields__}
    return change_policy(store, ids, scope=SETTINGS_SCOPE, patch=PolicyPatch(**values), actor=SYSTEM)


def _check_version(scope: str, current: int, expected: int | None) -> None:
    if expected is not None and expected != current:
        raise PreconditionFailed(f"policy {scope!r} is at version {current}, not {expected}; read it again")


def _recompute_due(tx: Transaction, policies: Policies) -> None:
    stored = [tx.workspace(workspace) for workspace in tx.locked()]
    save(tx, [row.state for row in stored if row is not None], policies)
