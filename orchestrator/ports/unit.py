"""A unit: one writing transaction of the log as a value, so that the units that wait can share a commit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

from msgspec import Struct

from orchestrator.ports.transaction import Transaction

AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Asked(Struct, frozen=True, kw_only=True):
    """What a unit's step will ask for, known before: read for all units of a commit at once, before the append lock."""

    sources: Collection[tuple[str, str]] = ()
    """(source, source_id) of writes that may have been recorded before."""
    answers: Collection[tuple[str, str]] = ()
    """(actor, key) of requests that may have been answered before."""
    decides: bool = False
    """Its rows' leases, their restarts' records and the paths that their windows hold."""


NOTHING_ASKED = Asked()
DECIDES = Asked(decides=True)


class Answered(Struct, frozen=True):
    """A unit that is committed, and its step's answer."""

    answer: Any


class Refused(Struct, frozen=True):
    """A unit of which nothing is stored; or, with ``StorageUnavailable`` at the commit, of which nobody knows yet."""

    error: BaseException


Wake = Callable[[], None]
Tell = Callable[[Answered | Refused], Wake | None]
"""Told a unit's outcome, by the thread that committed it: returns at once and does not raise.

What it returns is called once all outcomes of the commit are told, once however many return the same: who is woken
for each answer finds one, goes to sleep again, and takes the processor from whoever answers (measured: 45 of 50).
"""


class Unit(Struct, Generic[AnswerT_co], frozen=True, kw_only=True):
    """What touches ``workspaces`` in one step, alone or in the same transaction as others.

    ``step`` gets the transaction, in which the steps before it have left their changes, and returns the unit's answer,
    which is given out once everything is committed. It may be carried out again, after a rollback: it changes nothing
    but the transaction. Where it raises, nothing of the unit is written, and the others go on.
    """

    name: str
    workspaces: tuple[str, ...]
    step: Callable[[Transaction], AnswerT_co]
    asked: Asked = NOTHING_ASKED
    passes_over: bool = False
    """A row that another transaction holds is left out (the step finds none) instead of waited for."""
    hurried: bool = False
    """Goes before those that are not: cycles' starts and ends and what comes due, before new writes."""
    weight: int = 1
    """About how many events it appends: a commit takes units up to a bound."""
