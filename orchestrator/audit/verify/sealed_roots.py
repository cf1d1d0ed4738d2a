"""Promise S8: the events of the log hash to the roots that were sealed and signed."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.audit.verify.checkpoint import Checkpoint
from orchestrator.audit.verify.merkle import Frontier, leaf_hashes

_TOGETHER = 1_024


class SealCheck:
    """Hashes the canonical bytes of every event from the first on, and compares at each checkpoint's size.

    The more checkpoints, the closer the place where the log was changed is known.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._left = sorted(checkpoints, key=lambda checkpoint: checkpoint.size)
        self._frontier = Frontier()
        self._waiting: list[bytes] = []
        self._next = self._left[0].size if self._left else -1
        self._count = 0
        self._last_position = 0
        self._sound_to = 0
        self.broken: list[tuple[tuple[int, ...], str]] = []
        """Positions and a sentence of the first checkpoint that does not hold."""

    @property
    def sealed_to(self) -> int:
        """Return the position up to which the log is what was sealed."""
        return self._sound_to

    def add(self, line: bytes, position: int) -> None:
        """Take the next event's canonical bytes."""
        self._count += 1
        self._last_position = position
        if not self._left:
            return
        self._waiting.append(line)
        if self._count == self._next:
            self._compare()
        elif len(self._waiting) == _TOGETHER:
            self._hash()

    def finish(self) -> None:
        """Compare what is sealed beyond the end of the log: a tail that is cut off."""
        for checkpoint in self._left:
            text = f"{checkpoint.size} events are sealed, but the log ends after {self._count}: its tail is missing"
            self.broken.append(((self._last_position,), text))
        self._left = []

    def _hash(self) -> None:
        self._frontier.extend(leaf_hashes(self._waiting))
        self._waiting.clear()

    def _compare(self) -> None:
        self._hash()
        while self._left and self._left[0].size == self._count:
            checkpoint = self._left.pop(0)
            if self._frontier.root() != checkpoint.root:
                self._tell(f"the first {self._count} events do not hash to the root that was sealed for them")
            elif checkpoint.position not in (None, self._last_position):
                self._tell(f"event {self._count} was sealed at position {checkpoint.position}")
            else:
                self._sound_to = self._last_position
        self._next = self._left[0].size if self._left else -1

    def _tell(self, text: str) -> None:
        after = f"the log is what was sealed up to position {self._sound_to}, and" if self._sound_to else "so"
        where = f"{after} something up to position {self._last_position} was edited, cut or put in"
        self.broken.append(((self._sound_to + 1, self._last_position), f"{text}; {where}"))
        self._left = []  # every later root holds the same change
