"""Which numbers were in force, from the policy events of the log: the nearest layer wins, field by field."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.audit.verify.event_data import PolicyPatch
from orchestrator.audit.verify.ledger import Layer, Ledger, Workspace

_SETTINGS = "settings"
NamedRule = tuple[str | None, str, int | None, int | None]
_FIELDS = PolicyPatch.__struct_fields__


class InForce(msgspec.Struct, frozen=True):
    """The numbers of a workspace, the version of the newest stored layer, and the position that it came with.

    ``rules``: the path rules as writes name them, with the action and the numbers that each gives.
    """

    numbers: PolicyPatch
    version: int
    position: int
    rules: frozenset[NamedRule]


class Policies:
    """Answers from the ledger's layers; every answer is kept until a layer changes."""

    def __init__(self, ledger: Ledger) -> None:
        self._layers = ledger.layers
        self._kept: dict[tuple[str, PolicyPatch], InForce] = {}

    def change(self, scope: str, layer: Layer) -> None:
        """Replace a layer."""
        self._layers[scope] = layer
        self._kept.clear()

    def in_force(self, workspace: Workspace) -> InForce | None:
        """Return the numbers in force; None if the log does not hold those of the settings (a part of a log)."""
        if _SETTINGS not in self._layers:
            return None
        key = (workspace.fleet, workspace.policy)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._merged(workspace)
        return found

    def _merged(self, workspace: Workspace) -> InForce:
        scopes = (_SETTINGS, "default", f"fleet:{workspace.fleet}")
        layers = [self._layers[scope] for scope in scopes if scope in self._layers]
        values: dict[str, Any] = {}
        for patch in (*(layer.policy for layer in layers), workspace.policy):
            said = {name: getattr(patch, name) for name in _FIELDS}
            values |= {name: value for name, value in said.items() if value is not None}
        newest = max(layers, key=lambda layer: layer.version)
        numbers = PolicyPatch(**values)
        rules = frozenset(
            (" ".join(rule.match), rule.action, rule.quiet_ms, rule.max_wait_ms) for rule in numbers.rules or ()
        )
        return InForce(numbers=numbers, version=newest.version, position=newest.position, rules=rules)
