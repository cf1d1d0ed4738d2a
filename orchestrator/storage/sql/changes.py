"""What the steps of a transaction have changed and what is not written yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.events import Recorded
from orchestrator.domain.policy import PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need
from orchestrator.domain.snapshot import Snapshot
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.transaction import StoredAnswer
from orchestrator.ports.workspaces import Lease
from orchestrator.storage.sql.workspace_rows import Found

Came = tuple[Need, datetime, int]


@dataclass
class Changes:
    """In the order of the steps; where two changed the same, the later one counts."""

    events: list[Recorded] = field(default_factory=list)
    by_source: dict[tuple[str, str], Recorded] = field(default_factory=dict)
    workspaces: dict[str, Found] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    """Of the cycles that start."""
    restarts: dict[str, RestartProjection] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    layers: dict[str, PolicyLayer] = field(default_factory=dict)
    recomputed: list[tuple[Recomputation, str | None]] = field(default_factory=list)
    """How far the windows followed a layer, and how far they do now."""
    answers: dict[tuple[str, str], StoredAnswer] = field(default_factory=dict)
    away: list[tuple[Sequence[Came], Sequence[Need]]] = field(default_factory=list)
    keys: dict[str, StoredKey] = field(default_factory=dict)
    budgets: dict[str, datetime] = field(default_factory=dict)
    """Until when keys have used up their writes."""

    def absorb(self, later: Changes) -> None:
        """Take up what a later step has changed."""
        self.events += later.events
        self.workspaces |= later.workspaces
        self.by_source |= later.by_source
        self.answers |= later.answers
        if later.is_of_writes:
            return
        self.leases |= later.leases
        self.restarts |= later.restarts
        self.snapshots += later.snapshots
        self.layers |= later.layers
        self.recomputed += later.recomputed
        self.away += later.away
        self.keys |= later.keys
        self.budgets |= later.budgets

    @property
    def is_of_writes(self) -> bool:
        """True where nothing has changed but what new writes change."""
        rest = self.leases or self.restarts or self.snapshots or self.layers or self.recomputed or self.away
        return not (rest or self.keys or self.budgets)
