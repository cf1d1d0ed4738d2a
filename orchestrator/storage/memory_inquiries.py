"""``Inquiries`` on the in-memory store."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from orchestrator.domain.snapshot import Snapshot
from orchestrator.inquiries import Place
from orchestrator.ports import Clock
from orchestrator.storage.memory_content import Content
from orchestrator.storage.memory_log import MemoryLog


class MemoryInquiries:
    """``Inquiries`` over a content and the shared log below its length."""

    def __init__(self, log: MemoryLog, content: Content, clock: Clock) -> None:
        self._log = log
        self._content = content
        self._clock = clock

    def place_of(self, at: datetime) -> Place:
        """Return where an instant lies in the log."""
        position = self._log.position_at(at, length=self._content.length)
        return Place(now=self._content.store_time(self._clock.now()), position=position)

    def snapshots(self, of: Collection[str], to_position: int) -> dict[str, Snapshot]:
        """Return each workspace's newest snapshot at or before that position, for those that have one."""
        earlier = (found for position, found in self._content.snapshots.items() if position <= to_position)
        return {found.state.workspace: found for found in earlier if found.state.workspace in of}

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        return [found for position, found in self._content.snapshots.items() if first <= position <= last]
