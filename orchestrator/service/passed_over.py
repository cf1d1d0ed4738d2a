"""Workspaces on which time was spent in vain: each is left alone for a while, so that it cannot stop all others."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

_SHARE = 10
"""A workspace rests for so many times as long as it took: at most about a tenth of the time is lost to it."""
_REST_LEAST_S, _REST_MOST_S = 1.0, 300.0


class PassedOver:
    """What one process passes over, and until when. Safe to use from several threads."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, workspace: str, *, took_s: float) -> None:
        """Note that ``took_s`` were spent on a workspace in vain."""
        rest_s = min(max(_SHARE * took_s, _REST_LEAST_S), _REST_MOST_S)
        with self._lock:
            self._until_s[workspace] = time.monotonic() + rest_s

    def resting(self) -> set[str]:
        """Return the workspaces that are to be left alone now."""
        now_s = time.monotonic()
        with self._lock:
            self._until_s = {name: until_s for name, until_s in self._until_s.items() if until_s > now_s}
            return set(self._until_s)


@dataclass(frozen=True, kw_only=True)
class Lost:
    """On what a process lost time: workspaces that are ``slow``, and those whose row was ``held`` for long.

    Slow ones are not tried for a while, held ones only not waited for.
    """

    slow: PassedOver = field(default_factory=PassedOver)
    held: PassedOver = field(default_factory=PassedOver)
