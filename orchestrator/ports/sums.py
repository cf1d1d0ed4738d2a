"""Sums kept behind the log: what waits, what happened in each five minutes, what restarts came to.

Who reads them adds what came since the position that they are kept for, so that the answer is of this moment; they are
no truth of their own, and come about anew from the log and its read models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from orchestrator.ports.inquiries import RestartSum, Scope

SUMS = "sums"
"""Name of the counters whose position says up to where the sums are kept."""

FIVE_MINUTES_S, DAY_S = 300, 86_400


class SumKind(StrEnum):
    """Of whom a sum is."""

    ALL = "all"
    FLEET = "fleet"
    WORKSPACE = "workspace"


class Of(NamedTuple):
    """Of whom a sum is, by name; ``all`` has none."""

    kind: SumKind
    name: str


class Counted(NamedTuple):
    """What one workspace counts for in the sums of what waits. ``waiting``: 1 if it has writes or requests pending."""

    fleet: str
    phase: str
    pending_writes: int
    waiting: int


class Activity(NamedTuple):
    """What was recorded in five minutes."""

    writes: int
    restarts: int
    cycles_failed: int


class Period(NamedTuple):
    """Of whom, how long, and from when on (UTC)."""

    of: Of
    period_s: int
    since: datetime


Amounts = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SumsToAdd:
    """What events after ``after`` and up to ``position`` add to the sums.

    ``backlog`` by fleet and phase (workspaces, pending writes, waiting); ``restarts`` by state and cause, ``failures``
    by type and error. Amounts are in the order of the tables' columns.
    """

    after: int
    position: int
    workspaces: Mapping[str, Counted]
    backlog: Mapping[tuple[str, str], Amounts]
    activity: Mapping[tuple[Of, datetime], Amounts]
    restarts: Mapping[tuple[Period, str, str], Amounts]
    failures: Mapping[tuple[Period, str, str], Amounts]


class Sums(Protocol):
    """The part of a reader that knows the kept sums."""

    def sums_to_add(self, most: int) -> SumsToAdd | None:
        """Return what the next ``most`` positions add to the sums; None: they are kept up to the last event."""
        ...

    def sums_position(self) -> int | None:
        """Return the position that the sums are kept for; None: too much came after it for a question to add."""
        ...

    def kept_restart_sums(self, scope: Scope, *, after: int) -> list[RestartSum]:
        """Return the sums over all restarts in scope, which names no workspace.

        They are of this moment: what came after ``after``, the ``sums_position``, is added.
        """
        ...

    def kept_failure_counts(self, scope: Scope, *, after: int) -> dict[tuple[str, str | None], int]:
        """Return how often each type of failure came in such a scope, by type and error kind or reason."""
        ...

    def activity(
        self, kind: SumKind, since: datetime, *, name: str | None = None
    ) -> Sequence[tuple[Of, datetime, Activity]]:
        """Return what is kept of each five minutes that began then or later, in their order."""
        ...
