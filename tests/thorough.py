"""How many examples a property is tried on: some in every run, others each time; many in `./dev thorough`."""

from __future__ import annotations

import os

from hypothesis import settings

THOROUGH = os.environ.get("TEST_PROPERTIES") == "thorough"
_TIMES = 20
_USUAL = 50
"""For a property that says no number of its own."""


def examples(count: int) -> int:
    """Return how many examples there are to be of what is tried on ``count`` in every run."""
    return count * _TIMES if THOROUGH else count


def try_many_examples() -> None:
    """Have every property that says nothing else tried on that many."""
    settings.register_profile("of this run", max_examples=examples(_USUAL))
    settings.load_profile("of this run")
