"""How much a key may still read: each process counts for itself, so that a read costs no statement (GCRA)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from orchestrator.errors import RateExceeded

MINUTE_S = 60.0


class ReadBudgets:
    """What callers have used. One may ask for its minute's worth at once, and then as it comes back."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._full_at: dict[str, float] = {}

    def take(self, caller: str, per_minute: int) -> None:
        """Take one read of a caller, by the name that its keys share. Raises ``RateExceeded``."""
        now, each_s = self._monotonic(), MINUTE_S / per_minute
        full_at = max(self._full_at.get(caller, now), now) + each_s
        if full_at - now > MINUTE_S + 1e-9:
            raise rate_exceeded("reads", per_minute, after_s=full_at - now - MINUTE_S)
        self._full_at[caller] = full_at


def rate_exceeded(name: str, per_minute: int, *, after_s: float) -> RateExceeded:
    """Return the refusal of what is beyond a key's minute, with the fields of the draft on rate limits.

    The draft is draft-ietf-httpapi-ratelimit-headers-11: ``q`` per ``w`` seconds, ``r`` left, more in ``t`` seconds.
    """
    wait_s = max(1, math.ceil(after_s))
    return RateExceeded(
        f"this key may ask for {per_minute} {name} a minute, and has; nothing was stored: try again in {wait_s} s, "
        "with the same Idempotency-Key or id",
        retry_after_s=wait_s,
        policy=f'"{name}";q={per_minute};w=60',
        left=f'"{name}";r=0;t={wait_s}',
    )
