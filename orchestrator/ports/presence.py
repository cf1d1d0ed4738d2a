"""Which workers are there, and what nobody serves: what telling it needs of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.serving import Need, SeenWorker, Serving


class Presence(Protocol):
    """What a reader knows of who is there."""

    def workers(self) -> list[SeenWorker]:
        """Return the workers that were seen lately, and those that are gone until they are forgotten."""
        ...

    def waiting_for(self) -> Mapping[Need, datetime]:
        """Return for what executors and pools restarts wait to be started, and since when the longest is ready."""
        ...

    def away(self) -> Mapping[Need, datetime]:
        """Return what nobody serves as the log says, and since when."""
        ...

    def unclaimable(self) -> int:
        """Count the workspaces whose restart waits for what nobody serves."""
        ...


class PresenceStore(Protocol):
    """What workers leave in the store."""

    def note_worker(self, name: str, host: str, serving: Serving, slots: int) -> None:
        """Note that a worker is there now, and what it serves; forget those that were not seen for a day."""
        ...


class PresenceChange(Protocol):
    """What a transaction changes of it: under the append lock, so that nothing is said twice."""

    def away(self) -> Mapping[Need, datetime]:
        """Return what nobody serves as the log says, at this instant."""
        ...

    def save_away(self, came: Sequence[tuple[Need, datetime, int]], went: Sequence[Need]) -> None:
        """Keep what is away from now on (since when, and the event's position), and drop what is back."""
        ...
