"""What auditors ask of a store beyond its single rows: the past, and questions over many. ``ports.Reader`` answers.

Over one workspace each is a few index probes or one index range, whatever the history's length. Over all of them
the work is bounded by ``most``, the newest rows that are looked at.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instant lies in the log. ``now``: max(the database's clock, the last ``recorded_at``)."""

    now: datetime
    position: int
    """The newest position recorded at that instant or before; 0 if there is none."""


class Inquiries(Protocol):
    """The part of a reader that only the audit uses."""

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        ...

    def snapshots(self, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
        """Return each workspace's newest snapshot at or before that position, for those that have one."""
        ...

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        ...
