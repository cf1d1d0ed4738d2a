"""For how long what was written was not yet loaded."""

from __future__ import annotations

from orchestrator.ports.inquiries import Scope, Waits
from orchestrator.ports.store import Reader

MOST_MEASURED = 2_000
"""Restarts of which the waits are measured, the newest ones in scope: 20 of them lie above the 99th percentile."""


def staleness(reader: Reader, scope: Scope) -> Waits:
    """Return the percentiles of how long the oldest write (or request) of each succeeded restart waited.

    From the restarts' own rows, so no event is read: the oldest waits longest, and the other writes of a restart
    less. Of more than ``MOST_MEASURED`` restarts in scope the newest ones are looked at.
    """
    return reader.waits(scope, most=MOST_MEASURED)
