"""Defects planted in how a look starts what it folds."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.ports.transaction import Transaction
from orchestrator.service import claim, drain
from tests.simulation.planting import Planting

_start_held = claim.Claimer.start_held


def looked_claims_dropped(planting: Planting) -> None:
    def go_on(drainer: drain.Drainer, claims: Sequence[claim.Claim], *, reserved: int) -> None:
        drainer._give_back(reserved)

    planting.name(drain.Drainer, "go_on", go_on)


def reserved_slots_kept(planting: Planting) -> None:
    def go_on(drainer: drain.Drainer, claims: Sequence[claim.Claim], *, reserved: int) -> None:
        for each in claims:
            drainer._begin(each)

    planting.name(drain.Drainer, "go_on", go_on)


def started_beyond_bounds(planting: Planting) -> None:
    def start_held(
        drainer: drain.Drainer, tx: Transaction, workspace: str
    ) -> tuple[claim.Claim | None, list[ev.Recorded]]:
        claimer = drainer._claimer
        kept = claimer._capacity
        claimer._capacity = lambda tx, registration, policy: cmd.UNBOUNDED  # type: ignore[method-assign]
        try:
            found, recorded = _start_held(claimer, tx, workspace, 1)
        finally:
            claimer._capacity = kept  # type: ignore[method-assign]
        return (found if isinstance(found, claim.Claim) else None), recorded

    planting.name(drain.Drainer, "start_held", start_held)
