"""Slots that end a cycle or look for work at the same time share a commit: one of them acts for all, in one unit.

Otherwise each would wait for the commit of its end and then for that of its next start, and those that look for work
read the same list and try the same workspace first, and all but one are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import TimedOut, Unavailable
from orchestrator.service.claim import Claim, EndedAndStarted
from orchestrator.service.cycle_end import CycleEnd

_END_WAITS_S = 0.25
"""How long an end waits for others' commit to begin its own: a search that waits for rows may take seconds."""


class Claiming(Protocol):
    """Whoever starts cycles."""

    def claim_oldest(self, most: int = 1, iterations: Mapping[str, int] = ...) -> list[Claim]:
        """Start up to ``most`` cycles, those that have waited longest."""
        ...

    def end_and_start(
        self, ends: Sequence[CycleEnd], most: int, iterations: Mapping[str, int], *, others_look: bool = False
    ) -> EndedAndStarted:
        """Record ends, then start up to ``most`` cycles less the ends that could not be recorded, in one commit."""
        ...


@dataclass(frozen=True, kw_only=True)
class HandedOver:
    """What became of an end that was handed over, and what is to be done next.

    ``is_recorded`` False: its slot is to record it by itself, and has no claim. ``failed``: with what the commit
    failed that it was part of; None where it was part of none.
    """

    is_recorded: bool
    claim: Claim | None
    failed: BaseException | None


@dataclass(eq=False)
class _Ask:
    """A slot that waits. ``last`` is the workspace that it has drained, ``iteration`` times; ``end`` of its cycle."""

    last: str
    iteration: int
    end: CycleEnd | None = None
    is_answered: bool = False
    is_recorded: bool = False
    claim: Claim | None = None
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error, self.is_answered = error, True


class SharedClaims:
    """Gives each slot that asks a claim of its own, or none. ``let_go`` is told of each end that it has recorded."""

    def __init__(self, claimer: Claiming, let_go: Callable[[CycleEnd], None] = lambda end: None) -> None:
        self._claimer, self._let_go = claimer, let_go
        self._asks: list[_Ask] = []
        self._is_led = False
        self._changed = threading.Condition()

    def next(self, last: str = "", iteration: int = 0) -> Claim | None:
        """Return a cycle that was started for this slot; None where nothing may start. Raises what claiming does."""
        ask = _Ask(last, iteration)
        self._see_through(ask, patience_s=None)
        if ask.error is not None:
            raise ask.error
        return ask.claim

    def hand_over(self, end: CycleEnd, iteration: int) -> HandedOver:
        """Record the end of a slot's cycle and start its next one in the same commit, as far as that can be."""
        ask = _Ask(end.workspace, iteration, end)
        self._see_through(ask, patience_s=_END_WAITS_S)
        if ask.error is not None and not isinstance(ask.error, Exception):
            raise ask.error
        return HandedOver(is_recorded=ask.is_recorded, claim=ask.claim, failed=ask.error)

    def _see_through(self, ask: _Ask, *, patience_s: float | None) -> None:
        """Have an ask answered, by others or in the lead; where nobody has taken it up in time, withdraw it."""
        with self._changed:
            self._asks.append(ask)
        while self._takes_lead(ask, patience_s):
            self._lead()

    def _takes_lead(self, ask: _Ask, patience_s: float | None) -> bool:
        """Wait, and return whether this ask's slot leads from now on; if not, it is answered or withdrawn."""
        with self._changed:
            is_over = self._changed.wait_for(lambda: ask.is_answered or not self._is_led, timeout=patience_s)
            if not is_over and ask in self._asks:
                self._asks.remove(ask)
                return False
            self._changed.wait_for(lambda: ask.is_answered or not self._is_led)  # what is taken up has no other outcome
            self._is_led = self._is_led or not ask.is_answered
            return not ask.is_answered

    def _lead(self) -> None:
        """Act for all who wait now; whoever comes meanwhile is led by one of themselves."""
        with self._changed:
            asks, self._asks = self._asks, []
        try:
            if any(ask.end is not None for ask in asks):
                self._end_and_start(asks)
            else:
                self._search(asks)
        finally:
            with self._changed:
                self._asks[:0] = [ask for ask in asks if not ask.is_answered]
                self._is_led = False
                self._changed.notify_all()

    def _end_and_start(self, asks: Sequence[_Ask]) -> None:
        """Answer every end; who only looks for work and finds none here goes on waiting, for a search."""
        ending = [ask for ask in asks if ask.end is not None]
        ends = [ask.end for ask in ending if ask.end is not None]
        others_look = len(ending) < len(asks)
        try:
            done = self._claimer.end_and_start(ends, len(asks), _iterations(asks), others_look=others_look)
        except BaseException as error:
            for ask in asks if _is_everybodys(error) else ending:
                ask.fail(error)
            if not isinstance(error, Exception):
                raise
            return
        for ask, is_recorded in zip(ending, done.recorded, strict=True):
            ask.is_recorded = is_recorded
            if is_recorded and ask.end is not None:
                self._let_go(ask.end)
        free = [ask for ask in asks if ask.end is None or ask.is_recorded]
        for ask, claim in zip(sorted(free, key=_has_end), done.claims, strict=False):  # who ends looks again by itself
            ask.claim = claim
        for ask in asks:
            ask.is_answered = ask.end is not None or ask.claim is not None

    def _search(self, asks: Sequence[_Ask]) -> None:
        try:
            claims = self._claimer.claim_oldest(len(asks), _iterations(asks))
        except BaseException as error:
            for ask in asks:
                ask.fail(error)
            if not isinstance(error, Exception):
                raise
            return
        for ask, claim in zip(asks, [*claims, *[None] * (len(asks) - len(claims))], strict=True):
            ask.claim, ask.is_answered = claim, True


def _has_end(ask: _Ask) -> bool:
    return ask.end is not None


def _iterations(asks: Sequence[_Ask]) -> dict[str, int]:
    return {ask.last: ask.iteration for ask in asks if ask.last}


def _is_everybodys(error: BaseException) -> bool:
    """Say whether a search would fail too; one statement's time, or one workspace's defect, is no reason for that."""
    return (isinstance(error, Unavailable) and not isinstance(error, TimedOut)) or not isinstance(error, Exception)
