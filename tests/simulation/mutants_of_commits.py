"""Defects planted in how units share a commit."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import RolledBack, StorageUnavailable, Unavailable
from orchestrator.ports.unit import Refused
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.storage import committing
from orchestrator.storage.committing import AnyUnit, Outcome, Writing
from tests.memory_store.transaction import MemoryTransaction
from tests.simulation import committer as simulated
from tests.simulation.planting import Planting

_together = committing._commit_together


class _TakenAlong(Exception):
    """A unit has failed, and with it everybody else."""


def answered_before_commit(planting: Planting) -> None:
    def together(store: Writing, units: Sequence[AnyUnit], *, skip_locked: bool) -> list[Outcome]:
        outcomes: list[Outcome] = []
        names = {name for unit in units for name in unit.workspaces}
        try:
            with store.write(names, skip_locked=skip_locked) as tx:
                outcomes = [committing._step(tx, unit) for unit in units]
        except StorageUnavailable:
            if not outcomes:
                raise
        return outcomes

    planting.name(committing, "_commit_together", together)


def failing_unit_takes_others_along(planting: Planting) -> None:
    def group(store: Writing, units: Sequence[AnyUnit], *, skip_locked: bool) -> list[Outcome]:
        names = {name for unit in units for name in unit.workspaces}
        try:
            with store.write(names, skip_locked=skip_locked) as tx:
                outcomes = [committing._step(tx, unit) for unit in units]
                failed = [
                    one for one in outcomes if isinstance(one, Refused) and not isinstance(one.error, Unavailable)
                ]
                if failed:
                    raise _TakenAlong
        except Unavailable as error:
            return [Refused(error) for _ in units]
        except _TakenAlong:
            return [failed[0] for _ in units]
        return outcomes

    planting.name(committing, "commit_group", group)
    planting.name(simulated, "commit_group", group)


def stale_states(planting: Planting) -> None:
    def workspace(tx: MemoryTransaction, name: str) -> StoredWorkspace | None:
        return tx._base.workspaces.get(name) if name in tx._named else None

    planting.name(MemoryTransaction, "workspace", workspace)


def split_commits_twice(planting: Planting) -> None:
    def group(store: Writing, units: Sequence[AnyUnit], *, skip_locked: bool) -> list[Outcome]:
        try:
            return _together(store, units, skip_locked=skip_locked)
        except RolledBack as error:
            if len(units) == 1:
                return [Refused(error)]
        except Unavailable as error:
            return [Refused(error) for _ in units]
        half = len(units) // 2
        first = group(store, units[:half], skip_locked=skip_locked)
        second = group(store, units[half - 1 :], skip_locked=skip_locked)
        return [*first[: half - 1], *second]

    planting.name(committing, "commit_group", group)
    planting.name(simulated, "commit_group", group)


def _is_own(refused: Refused) -> bool:
    return not isinstance(refused.error, Unavailable)
