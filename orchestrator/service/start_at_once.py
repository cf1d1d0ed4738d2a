"""What a look folds is started in the same commit, where the process that looks has a slot for it.

Otherwise a restart waits for another commit, and for the broker before that (measured: 25 ms with ``memory://``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.domain.events import Recorded
from orchestrator.ports.transaction import Transaction
from orchestrator.service.claim import Claim


class OwnSlots(Protocol):
    """The slots of the process that looks."""

    def reserve(self, most: int) -> int:
        """Take up to so many free slots without waiting; return how many."""
        ...

    def start_held(self, tx: Transaction, workspace: str) -> tuple[Claim | None, list[Recorded]]:
        """Start a cycle of a workspace that the transaction holds, if it may start here and now."""
        ...

    def go_on(self, claims: Sequence[Claim], *, reserved: int) -> None:
        """Carry the claims out in slots that were reserved, and give the rest of those back."""
        ...


class StartAtOnce:
    """What one look may start. ``slots`` None: nothing.

    Oldest first: as soon as something that is ready is left for others, the younger ones are left to claims too, which
    go by the order of all that is ready.
    """

    def __init__(self, slots: OwnSlots | None) -> None:
        self._slots = slots
        self.is_behind = False
        """Something that is ready waits already."""

    def reserve(self, most: int) -> int:
        """Take up to so many slots for what is going to be folded now."""
        return 0 if self._slots is None or self.is_behind else self._slots.reserve(most)

    def start_held(self, tx: Transaction, workspace: str) -> tuple[Claim | None, list[Recorded]]:
        """Start a cycle of a workspace that was just folded, if it may start here and now."""
        return (None, []) if self._slots is None else self._slots.start_held(tx, workspace)

    def go_on(self, claims: Sequence[Claim], *, reserved: int) -> None:
        """Carry out what was started and committed; give the other reserved slots back."""
        if self._slots is not None and reserved:
            self._slots.go_on(claims, reserved=reserved)
