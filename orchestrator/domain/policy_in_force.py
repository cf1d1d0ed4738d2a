"""Which numbers hold for one workspace: its own layer, its fleet's, the default and the floor (CONTRACT section 2)."""

from __future__ import annotations

from orchestrator.domain.policy import DEFAULT_FLEET, Policies, Policy, PolicyPatch
from orchestrator.domain.state import WorkspaceState


def policy_in_force(state: WorkspaceState, policies: Policies) -> Policy:
    """Return the numbers in force for a workspace; those of fleet ``default`` while it was never registered."""
    if state.registration is None:
        return policies.in_force(DEFAULT_FLEET, PolicyPatch())
    return policies.in_force(state.registration.fleet, state.registration.policy)
