"""A program that writes into the folder that it is restarted by: the same file, as long after each of its starts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from orchestrator.domain.own_writes import ROUNDS, as_long_after


class OwnWrites:
    """Looks at the writes after each start; a person's do not come as long after the start time after time."""

    def __init__(self) -> None:
        self._rounds: deque[tuple[int, dict[str, float]]] = deque(maxlen=ROUNDS)
        self._named: set[str] = set()

    def seen(self, start: int, since_start_s: float, paths: Iterable[str]) -> list[str]:
        """Take writes in; return the paths, each once, that came alike in ``ROUNDS`` rounds in a row.

        ``start`` numbers the workspace's starts; ``since_start_s`` are the seconds from that start to the writes.
        """
        if not self._rounds or self._rounds[-1][0] != start:
            if self._rounds and self._rounds[-1][0] != start - 1:
                self._rounds.clear()
            self._rounds.append((start, {}))
        first = self._rounds[-1][1]
        new = [path for path in dict.fromkeys(paths) if path not in first]
        first.update(dict.fromkeys(new, since_start_s))
        found = [path for path in new if path not in self._named and self._is_alike(path)]
        self._named.update(found)
        return found

    def _is_alike(self, path: str) -> bool:
        return as_long_after([first[path] for _, first in self._rounds if path in first])
