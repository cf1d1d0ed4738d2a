"""One writing transaction of the log, open between its locks and its commit, as the service's steps see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.events import NewEvent, Recorded
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.snapshot import Snapshot
from orchestrator.ports.keys import KeyChange
from orchestrator.ports.presence import PresenceChange
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.workspaces import Lease, StoredWorkspace


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """What was answered to an idempotency key, and to what body (its fingerprint)."""

    fingerprint: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Running:
    """How many cycles are open: in all, and in one fleet."""

    total: int
    in_fleet: int


class Transaction(PresenceChange, KeyChange, Protocol):
    """One writing transaction, open between its locks and its commit.

    Lock order, always (DESIGN section 3): workspace rows in id order, then the append lock, then one
    instant is read. All of that has happened when the transaction is handed out.
    """

    now: datetime
    """max(the database's clock, the last ``recorded_at``): the ``recorded_at`` of all its events."""
    clock_behind_ms: int
    """How far the clock stands behind the last ``recorded_at``; 0 unless it stepped back."""

    def part(self) -> AbstractContextManager[None]:
        """Carry out one step of several: where it raises, its changes are forgotten, and those before it stay."""
        ...

    def is_busy(self, names: Collection[str]) -> bool:
        """Return whether another transaction holds one of these rows, so that this one left it out."""
        ...

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a locked workspace; None if it has no row, or if another holds it (``skip_locked``)."""
        ...

    def locked(self) -> Sequence[str]:
        """Return the ids of the rows this transaction holds, in order."""
        ...

    def leases(self, workspaces: Collection[str]) -> Mapping[str, Lease]:
        """Return the leases of those of these locked workspaces whose cycle is open, and lock them."""
        ...

    def policies(self) -> Policies:
        """Return the stored policy layers, as they are at this instant."""
        ...

    def append(self, events: Sequence[NewEvent]) -> list[Recorded]:
        """Append in the order given.

        Where (workspace, version), an id or a source's id is taken, the whole transaction is refused at its end.
        """
        ...

    def save(self, workspaces: Sequence[StoredWorkspace]) -> None:
        """Write the rows of locked workspaces; a workspace without a row gets one.

        A lease is written with a cycle that starts, and goes with one that ends; in between it is left alone.
        """
        ...

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart's read model."""
        ...

    def save_restarts(self, records: Sequence[RestartProjection]) -> None:
        """Insert or replace read models."""
        ...

    def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep states as they were right after events of this transaction; none costs nothing."""
        ...

    def save_policy(self, layer: PolicyLayer) -> None:
        """Insert or replace a policy layer, and note that no open window of its scope follows it yet."""
        ...

    def note_recomputed(self, done: Recomputation, to: str | None) -> None:
        """Note that open windows follow a layer up to a workspace, None: all of them.

        Does nothing where ``done`` is not how far it is: the layer was changed again, or another has gone on.
        """
        ...

    def count_paths(self, workspace: str, from_position: int, to_position: int, since: datetime | None) -> int:
        """Count the distinct paths of the range's writes whose action is not ``record``.

        None of those may have been recorded before ``since`` (None: whenever); what was is not even looked at.
        """
        ...

    def running(self, fleet: str) -> Running:
        """Count the open cycles; exact, since every start holds the append lock."""
        ...

    def by_source(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Recorded]:
        """Return the events that were recorded for these (source, source_id)."""
        ...

    def answer(self, actor: str, key: str) -> StoredAnswer | None:
        """Return what was answered to this actor's idempotency key, if it came before."""
        ...

    def remember(self, actor: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer to an idempotency key; it is committed with what it answers."""
        ...

    def last_clock_regression_at(self) -> datetime | None:
        """Return ``recorded_at`` of the newest ``ClockRegressed``."""
        ...
