"""When a supervised program dies again and again: three times in a row within ``settle`` of its start."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestrator.domain.events import ProcessExited, Recorded

DEATHS = 3
"""So many in a row are a loop (CONTRACT section 8)."""


def row_of_deaths(
    exits: Sequence[Recorded], *, started_at: datetime | None, settle: timedelta, now: datetime
) -> list[Recorded]:
    """Return the deaths of a loop that has not ended, the first first; none: there is no loop.

    ``exits``: the workspace's ``ProcessExited``, in order. Those before ``started_at``, the last start of a cycle, do
    not count: what that started is another program. A child that has lived ``settle`` ends the loop. How long the
    first one lived is not known (an ``up`` may have started it), so it counts.
    """
    row: list[Recorded] = []
    child_since: datetime | None = None
    for event in exits:
        data = event.data
        if not isinstance(data, ProcessExited) or data.respawn_after_ms == 0:
            continue  # ended by itself, but replaced by a restart that was under way
        if started_at is not None and event.recorded_at <= started_at:
            continue
        lived_long = child_since is not None and event.recorded_at - child_since >= settle
        row = [] if lived_long else [*row, event]
        child_since = event.recorded_at + timedelta(milliseconds=data.respawn_after_ms)
    is_over = child_since is None or now - child_since >= settle
    return [] if is_over or len(row) < DEATHS else row
