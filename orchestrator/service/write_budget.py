"""How much a key may still write: counted in the commit of what it writes, so it is exact over all processes (GCRA).

A key may write its minute's worth at once, and then as it comes back. What was recorded before costs nothing, so that
whoever is refused sends the same again. A request of more than a minute's worth passes where nothing was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.ports.transaction import Transaction
from orchestrator.service.read_budget import MINUTE_S, rate_exceeded

_MINUTE = timedelta(seconds=MINUTE_S)


@dataclass(frozen=True, kw_only=True)
class WriteBudget:
    """What may be written in a minute with some keys together: writes and commands alike.

    ``keys``: the ids of the live keys of one name, which are two while one takes the other's place. Each has what all
    have used, so that whoever does not know the newer one yet counts on with the older, and the newer goes on alone.
    """

    keys: tuple[str, ...]
    per_minute: int


def charge(tx: Transaction, budget: WriteBudget | None, count: int) -> None:
    """Take ``count`` writes of a budget. Raises ``RateExceeded``; the unit then stores nothing."""
    if budget is None or count == 0:
        return
    used_until = [used for key in budget.keys if (used := tx.write_budget(key)) is not None]
    at = max([tx.now, *used_until])
    full_at = at + _MINUTE * count / budget.per_minute
    if full_at - tx.now > _MINUTE and at > tx.now:
        ahead = min(full_at - tx.now - _MINUTE, at - tx.now)
        raise rate_exceeded("writes", budget.per_minute, after_s=ahead.total_seconds())
    for key in budget.keys:
        tx.save_write_budget(key, full_at)
