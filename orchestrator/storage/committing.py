"""How units become committed: a group of them in one transaction, each answered or refused for itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.crash_points import crash_point
from orchestrator.errors import Conflict, OrchestratorError, RolledBack, Unavailable
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Answered, AnswerT, Asked, Refused, Tell, Unit

AnyUnit = Unit[Any]


@dataclass(frozen=True)
class Busy:
    """A unit that was left out, as another transaction holds a row of it."""


Outcome = Answered | Refused | Busy


class Writing(Protocol):
    """A store's transactions, as a committer needs them."""

    def write(
        self,
        workspaces: Collection[str] = (),
        *,
        skip_locked: bool = False,
        asked: Collection[Asked] = (),
        deciding: Collection[str] = (),
    ) -> AbstractContextManager[Transaction]:
        """Open a writing transaction that holds these workspaces' rows."""
        ...


class Committing(Protocol):
    """Whoever carries units out for a store."""

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Carry a unit out, commit it and return its answer. Raises what its step raised, or ``Unavailable``."""
        ...

    def submit(self, unit: AnyUnit, tell: Tell) -> None:
        """Carry a unit out and have its outcome told. Raises ``Unavailable`` where it is not even taken."""
        ...

    def close(self) -> None:
        """Carry out what waits, take nothing more."""
        ...


class OneByOne:
    """Each unit in a transaction of its own, in its caller's thread: for tests and for tools that write little."""

    def __init__(self, store: Writing) -> None:
        self._store = store

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Carry a unit out, commit it and return its answer. Raises what its step raised, or ``Unavailable``."""
        (outcome,) = commit_group(self._store, [unit], skip_locked=unit.passes_over)
        answer: AnswerT = answer_of(outcome)
        return answer

    def submit(self, unit: AnyUnit, tell: Tell) -> None:
        """Carry a unit out at once, and tell its outcome."""
        (outcome,) = commit_group(self._store, [unit], skip_locked=unit.passes_over)
        if not isinstance(outcome, Busy):  # none is: without skipping, rows are waited for
            wake = tell(outcome)
            if wake is not None:
                wake()

    def close(self) -> None:
        """Do nothing: nothing waits."""


def answer_of(outcome: Outcome) -> Any:
    """Return a unit's answer. Raises what it was refused with."""
    if isinstance(outcome, Answered):
        return outcome.answer
    if isinstance(outcome, Refused):
        raise outcome.error
    raise TypeError("a unit that waits for a row has no answer yet")


def commit_group(store: Writing, units: Sequence[AnyUnit], *, skip_locked: bool) -> list[Outcome]:
    """Carry units out one after the other in one transaction, commit once; return what became of each, in order.

    A unit whose step raises is refused alone. Where the database refuses the whole, halves are tried, down to single
    units; not where it is away, or nobody knows what it has stored: then all are refused with that.
    """
    try:
        return _commit_together(store, units, skip_locked=skip_locked)
    except Unavailable as error:
        if not isinstance(error, RolledBack) or len(units) == 1:
            return [Refused(error) for _ in units]
    except Conflict as error:
        if len(units) == 1:
            return _commit_again(store, units, error, skip_locked=skip_locked)
    except Exception as error:  # noqa: BLE001 (a defect of one unit, found by halves: it must not stop the others)
        if len(units) == 1:
            return [Refused(error)]
    half = len(units) // 2
    halves = (units[:half], units[half:])
    return [outcome for some in halves for outcome in commit_group(store, some, skip_locked=skip_locked)]


def _commit_together(store: Writing, units: Sequence[AnyUnit], *, skip_locked: bool) -> list[Outcome]:
    workspaces = {name for unit in units for name in unit.workspaces}
    deciding = {name for unit in units if unit.asked.decides for name in unit.workspaces}
    asked = [unit.asked for unit in units if unit.asked.sources or unit.asked.answers]
    outcomes: list[Outcome] = []
    try:
        with store.write(workspaces, skip_locked=skip_locked, asked=asked, deciding=deciding) as tx:
            outcomes += [_step(tx, unit) for unit in units]
    except RolledBack:
        if len(units) == 1 and outcomes and isinstance(outcomes[0], Refused):
            return outcomes  # its own statement failed, and with it the transaction: its own error says more
        raise
    return outcomes


def _step(tx: Transaction, unit: AnyUnit) -> Outcome:
    if not unit.passes_over and tx.is_busy(unit.workspaces):
        return Busy()
    crash_point("write.step")
    try:
        with tx.part():
            return Answered(unit.step(tx))
    except Exception as error:  # noqa: BLE001 (it is the caller's of this unit, who gets it)
        return Refused(error)


def _commit_again(
    store: Writing, units: Sequence[AnyUnit], error: OrchestratorError, *, skip_locked: bool
) -> list[Outcome]:
    """Try a single unit once more: whoever took the same id or key a moment ago is committed, and is seen now."""
    try:
        return _commit_together(store, units, skip_locked=skip_locked)
    except Exception as again:  # noqa: BLE001 (it is the caller's of this unit, who gets it)
        return [Refused(again if isinstance(again, OrchestratorError) else error)]
