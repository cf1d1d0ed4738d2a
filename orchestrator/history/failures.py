"""Which cycles failed or were abandoned, and which restarts were given up: how often, by kind, and the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.events import CycleAbandoned, CycleFailed, Recorded, RestartGaveUp
from orchestrator.history.storms import check_workspace
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import Reader

MOST_FAILURES = 10_000
"""Failures that are counted: the newest ones in scope; of each type, where no workspace is named."""


@dataclass(frozen=True, kw_only=True)
class FailureCounts:
    """``failed`` by error kind, ``abandoned`` by reason. ``complete``: nothing in scope was left out."""

    failed: Mapping[str, int]
    abandoned: Mapping[str, int]
    gave_up: int
    complete: bool


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How often, and the newest of them, newest first."""

    counts: FailureCounts
    newest: Sequence[Recorded]


def failures(reader: Reader, scope: Scope, limit: int) -> Failures:
    """Return the failures in scope. Raises ``NotFound`` for an unknown workspace.

    A range of an index that holds failures only, or a few types only: bounded by ``MOST_FAILURES``.
    """
    counts, newest = count_failures(reader, scope), reader.failures(scope, limit=limit)
    if not newest:
        check_workspace(reader, scope)
    return Failures(counts=counts, newest=newest)


def count_failures(reader: Reader, scope: Scope) -> FailureCounts:
    """Return how often cycles failed or were abandoned, and restarts given up."""
    found = reader.failure_counts(scope, most=MOST_FAILURES)
    of = {name: _of_type(found, name) for name in (CycleFailed.type_name(), CycleAbandoned.type_name())}
    gave_up = sum(_of_type(found, RestartGaveUp.type_name()).values())
    totals = [sum(counts.values()) for counts in of.values()] + [gave_up]
    counted = sum(totals) if scope.workspace is not None else max(totals)
    return FailureCounts(
        failed=of[CycleFailed.type_name()],
        abandoned=of[CycleAbandoned.type_name()],
        gave_up=gave_up,
        complete=counted < MOST_FAILURES,
    )


def _of_type(found: Mapping[tuple[str, str | None], int], name: str) -> dict[str, int]:
    return {kind or "": count for (of, kind), count in sorted(found.items(), key=str) if of == name}
