"""Slots that look for work at the same time share one claim: one of them claims for all, in one unit.

Otherwise each reads the same list and tries the same workspace first, and all but one are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.service.claim import Claim


class Claiming(Protocol):
    """Whoever starts cycles."""

    def claim_oldest(self, most: int = 1, iterations: Mapping[str, int] = ...) -> list[Claim]:
        """Start up to ``most`` cycles, those that have waited longest."""
        ...


@dataclass
class _Ask:
    """A slot that waits. ``last`` is the workspace that it has drained, ``iteration`` times."""

    last: str
    iteration: int
    is_answered: bool = False
    claim: Claim | None = None
    error: BaseException | None = None


class SharedClaims:
    """Gives each slot that asks a claim of its own, or none."""

    def __init__(self, claimer: Claiming) -> None:
        self._claimer = claimer
        self._asks: list[_Ask] = []
        self._is_led = False
        self._changed = threading.Condition()

    def next(self, last: str = "", iteration: int = 0) -> Claim | None:
        """Return a cycle that was started for this slot; None where nothing may start. Raises what claiming does."""
        ask = _Ask(last, iteration)
        with self._changed:
            self._asks.append(ask)
            self._changed.wait_for(lambda: ask.is_answered or not self._is_led)
            if not ask.is_answered:
                self._is_led = True
        if not ask.is_answered:
            self._lead()
        if ask.error is not None:
            raise ask.error
        return ask.claim

    def _lead(self) -> None:
        """Claim for all who wait now; whoever comes meanwhile is led by one of themselves."""
        with self._changed:
            asks, self._asks = self._asks, []
        try:
            self._answer(asks)
        finally:
            with self._changed:
                self._is_led = False
                self._changed.notify_all()

    def _answer(self, asks: Sequence[_Ask]) -> None:
        iterations = {ask.last: ask.iteration for ask in asks if ask.last}
        try:
            claims = self._claimer.claim_oldest(len(asks), iterations)
        except BaseException as error:
            for ask in asks:
                ask.error, ask.is_answered = error, True
            if not isinstance(error, Exception):
                raise
            return
        for ask, claim in zip(asks, [*claims, *[None] * (len(asks) - len(claims))], strict=True):
            ask.claim, ask.is_answered = claim, True
