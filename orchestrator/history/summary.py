"""What coalescing did over a span: restarts by state and cause, writes covered, restarts avoided, waits, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.restart_projection import RestartState
from orchestrator.history.failures import FailureCounts, count_failures
from orchestrator.history.staleness import staleness
from orchestrator.history.storms import MOST_RESTARTS, check_workspace
from orchestrator.ports.inquiries import RestartSum, Scope, Waits
from orchestrator.ports.store import Reader


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Sums over the restarts that were queued in scope, and the failures recorded in it.

    ``writes_covered``: writes with action restart or reload whose restart succeeded. ``restarts_started``: restarts
    with writes of which a cycle was started, shadow ones too. ``restarts_avoided``: the first less the second, since
    without coalescing each write is a restart; below zero where failing restarts outnumber the writes.
    ``oldest_write_waited``: see ``staleness``. ``complete`` is False where more than ``MOST_RESTARTS`` restarts
    (or ``MOST_FAILURES`` failures) are in scope: then it speaks of the newest ones.
    """

    restarts: int
    by_state: Mapping[str, int]
    by_cause: Mapping[str, int]
    shadow: int
    cycles: int
    writes_covered: int
    restarts_started: int
    restarts_avoided: int
    oldest_write_waited: Waits
    failures: FailureCounts
    complete: bool


def summary(reader: Reader, scope: Scope) -> Summary:
    """Return the sums. Raises ``NotFound`` for an unknown workspace.

    Of one workspace: an index range over its restarts, twice, and one over its failures.
    """
    sums = reader.restart_sums(scope, most=MOST_RESTARTS)
    if not sums:
        check_workspace(reader, scope)
    covered = sum(part.writes for part in sums if part.state is RestartState.SUCCEEDED)
    restarts, started = sum(part.restarts for part in sums), sum(part.started for part in sums)
    failed = count_failures(reader, scope)
    return Summary(
        restarts=restarts,
        by_state=_by(sums, "state"),
        by_cause=_by(sums, "cause"),
        shadow=sum(part.shadow for part in sums),
        cycles=sum(part.cycles for part in sums),
        writes_covered=covered,
        restarts_started=started,
        restarts_avoided=covered - started,
        oldest_write_waited=staleness(reader, scope),
        failures=failed,
        complete=restarts < MOST_RESTARTS and failed.complete,
    )


def _by(sums: Sequence[RestartSum], field: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in sums:
        name = getattr(part, field).value
        counts[name] = counts.get(name, 0) + part.restarts
    return dict(sorted(counts.items()))
