"""When a program seems to restart itself: it writes the same file as long after each of its starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

ROUNDS: Final = 3
"""So many starts in a row: a person's saves do not come as long after the start time after time."""

_SPREAD_S: Final = 1.0
_SPREAD_SHARE: Final = 0.2


def as_long_after(delays_s: Sequence[float]) -> bool:
    """Say whether ``ROUNDS`` delays, from a start to the first write after it, are alike.

    Alike: within 1 s of each other, or within a fifth of the longest.
    """
    spread_s = max(_SPREAD_S, _SPREAD_SHARE * max(delays_s, default=0.0))
    return len(delays_s) == ROUNDS and max(delays_s) - min(delays_s) <= spread_s


def remedy_of(path: str) -> str:
    """Return what ends the loop where the file does not matter to the program."""
    return f"add /{path} to .gitignore, or give it a path rule with the action record"
