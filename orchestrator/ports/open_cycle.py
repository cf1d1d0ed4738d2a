"""A cycle that is open now, as whoever must end it in a dead worker's place names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OpenCycle:
    """A cycle that has started and not ended, and the fence it was started with."""

    workspace: str
    cycle: str
    fence: int
