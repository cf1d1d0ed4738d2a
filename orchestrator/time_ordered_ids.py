"""Ids that sort by time."""

from __future__ import annotations

import uuid_utils


class TimeOrderedIds:
    """UUIDv7 behind a prefix."""

    def new(self, prefix: str) -> str:
        """Return a fresh id like ``evt_0197...``."""
        return f"{prefix}_{uuid_utils.uuid7().hex}"
