"""Waiting for something to become true, with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], *, what: str, timeout_s: float = 10.0, every_s: float = 0.01) -> T:
    """Poll ``condition`` until it returns something true, and return that.

    Raises ``AssertionError`` with ``what`` and the last value after ``timeout_s``.
    An exception of ``condition`` is the caller's: it ends the wait.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {value!r})")
        time.sleep(every_s)
