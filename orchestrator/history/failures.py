"""Which cycles failed or were abandoned, and which restarts were given up: how often, by kind, and the newest."""

from __future__ import annotations

from collections import Counter
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

    Of one workspace a range of an index that holds failures only, bounded by ``MOST_FAILURES``; of many kept sums.
    """
    after = None if scope.workspace is not None else reader.sums_position()
    counts = count_failures(reader, scope) if after is None else count_kept_failures(reader, scope, after=after)
    newest = reader.failures(scope, limit=limit)
    if not newest:
        check_workspace(reader, scope)
    return Failures(counts=counts, newest=newest)


def count_failures(reader: Reader, scope: Scope) -> FailureCounts:
    """Return how often cycles failed or were abandoned, and restarts given up."""
    found = reader.failure_counts(scope, most=MOST_FAILURES)
    by_type: Counter[str] = Counter()
    for (name, _), count in found.items():
        by_type[name] += count
    counted = by_type.total() if scope.workspace is not None else max(by_type.values(), default=0)
    return _counts_of(found, complete=counted < MOST_FAILURES)


def count_kept_failures(reader: Reader, scope: Scope, *, after: int) -> FailureCounts:
    """Return the same over all workspaces or a fleet's, from the sums that are kept for the position ``after``."""
    return _counts_of(reader.kept_failure_counts(scope, after=after), complete=True)


def _counts_of(found: Mapping[tuple[str, str | None], int], *, complete: bool) -> FailureCounts:
    return FailureCounts(
        failed=_of_type(found, CycleFailed.type_name()),
        abandoned=_of_type(found, CycleAbandoned.type_name()),
        gave_up=sum(_of_type(found, RestartGaveUp.type_name()).values()),
        complete=complete,
    )


def _of_type(found: Mapping[tuple[str, str | None], int], name: str) -> dict[str, int]:
    return {kind or "": count for (of, kind), count in sorted(found.items(), key=str) if of == name}
