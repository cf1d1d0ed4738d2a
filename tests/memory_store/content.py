"""What the in-memory store holds: one value, replaced as a whole at every commit, so that readers need no lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from orchestrator.domain.policy import PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need, SeenWorker
from orchestrator.domain.snapshot import Snapshot
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.transaction import StoredAnswer
from orchestrator.ports.workspaces import StoredWorkspace


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """An answer to an idempotency key, and when it was given."""

    answer: StoredAnswer
    at: datetime


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One committed state. ``length`` says how much of the shared log belongs to it."""

    length: int = 0
    last_recorded_at: datetime | None = None
    workspaces: Mapping[str, StoredWorkspace] = {}
    restarts: Mapping[str, RestartProjection] = {}
    policies: Mapping[str, PolicyLayer] = {}
    recomputations: Mapping[str, Recomputation] = {}
    answers: Mapping[tuple[str, str], Remembered] = {}
    snapshots: Mapping[int, Snapshot] = {}
    last_tick_at: datetime | None = None
    workers: Mapping[str, SeenWorker] = {}
    away: Mapping[Need, datetime] = {}
    keys: Mapping[str, StoredKey] = {}
    budgets: Mapping[str, datetime] = {}

    def store_time(self, clock: datetime) -> datetime:
        """Return max(clock, the last ``recorded_at``)."""
        return clock if self.last_recorded_at is None else max(clock, self.last_recorded_at)
