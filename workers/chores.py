"""What a worker does beside restarts: sealing, counting, verifying, forgetting. One at a time in a process.

So they take one thread of the pool, however slow they are, and no tick and no bell waits behind them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping


class Chores:
    """Named chores; each handles the failures that may happen to it."""

    def __init__(self, chores: Mapping[str, Callable[[], object]]) -> None:
        self._chores = chores
        self._lock = threading.Lock()
        self._asked: list[str] = []
        self._at_work = False

    def run(self, name: str) -> None:
        """Carry out a chore, and those that are asked for meanwhile. If others are under way, they are followed by it.

        A name that this process has no chore for (it has no key to seal with, say) is passed over.
        """
        if name not in self._chores or not self._begin(name):
            return
        try:
            while (following := self._next()) is not None:
                self._chores[following]()
        except BaseException:
            with self._lock:
                self._at_work = False
            raise

    def _begin(self, name: str) -> bool:
        with self._lock:
            if name not in self._asked:
                self._asked.append(name)
            if self._at_work:
                return False
            self._at_work = True
            return True

    def _next(self) -> str | None:
        with self._lock:
            if self._asked:
                return self._asked.pop(0)
            self._at_work = False  # under the same lock as the look: what is asked for from now on begins anew
            return None
