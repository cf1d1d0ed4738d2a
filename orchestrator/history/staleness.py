"""For how long what was written was not yet loaded."""

from __future__ import annotations

from orchestrator.history.storms import MOST_RESTARTS
from orchestrator.ports.inquiries import Scope, Waits
from orchestrator.ports.store import Reader


def staleness(reader: Reader, scope: Scope) -> Waits:
    """Return the percentiles of how long the oldest write (or request) of each succeeded restart waited.

    From the restarts' own rows, so no event is read: the oldest waits longest, and the other writes of a restart
    less. Of more than ``MOST_RESTARTS`` in scope the newest ones are measured.
    """
    return reader.waits(scope, most=MOST_RESTARTS)
