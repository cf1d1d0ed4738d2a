"""The product on a host whose wall clock is wrong: ``python -m tests.system.shifted_clock FILE ARGS...``.

FILE holds how many seconds the clock is ahead; writing another number into it steps the clock of the running process.
Monotonic time is untouched, as it is when an operator or NTP sets a clock.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any


def shift(file: Path) -> None:
    """Make every reading of the wall clock in this process wrong by what ``file`` says."""
    true_time, true_now = time.time, datetime.now

    def ahead_s() -> float:
        return float(file.read_text() or 0)

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        return true_now(tz) + timedelta(seconds=ahead_s())

    time.time = lambda: true_time() + ahead_s()
    time.time_ns = lambda: int(time.time() * 1e9)
    # The type itself is changed: a subclass in its place would not be the type that compiled modules make and test for.
    (methods,) = gc.get_referents(datetime.__dict__)
    _replace(methods, now=now, utcnow=lambda cls: now(cls, UTC).replace(tzinfo=None), today=now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


def _replace(methods: Any, **by_name: Any) -> None:
    for name, function in by_name.items():
        methods[name] = classmethod(function)


def main(file: str, *args: str) -> int:
    """Be ``orchestrator ARGS`` with the clock of ``file``."""
    shift(Path(file))
    from orchestrator.cli import main as orchestrator

    return int(orchestrator(list(args)) or 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
