"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Return as soon as ``condition`` holds; fail, naming ``what`` was awaited, after ``timeout_s`` seconds."""
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        pause.wait(0.01)
