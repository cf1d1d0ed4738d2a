"""What coalescing did over a span: restarts by state and cause, writes covered, restarts avoided, waits, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.restart_projection import RestartState
from orchestrator.history.failures import FailureCounts, count_failures, count_kept_failures
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
    ``oldest_write_waited``: see ``staleness``. ``complete`` is False where only the newest ``MOST_RESTARTS`` restarts
    and ``MOST_FAILURES`` failures were looked at, and there are more.
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

    Of one workspace: an index range over its restarts, twice, and one over its failures. Of many: kept sums and what
    came after them; while those are far behind the log, the newest restarts and failures are looked at.
    """
    sums, failed, complete = _from_rows(reader, scope) if scope.workspace is not None else _of_many(reader, scope)
    if not sums:
        check_workspace(reader, scope)
    covered = sum(part.writes for part in sums if part.state is RestartState.SUCCEEDED)
    restarts, started = sum(part.restarts for part in sums), sum(part.started for part in sums)
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
        complete=complete,
    )


Sums = tuple[Sequence[RestartSum], FailureCounts, bool]
"""Of restarts, of failures, and whether none was left out."""


def _of_many(reader: Reader, scope: Scope) -> Sums:
    after = reader.sums_position()
    if after is None:
        return _from_rows(reader, scope)
    return reader.kept_restart_sums(scope, after=after), count_kept_failures(reader, scope, after=after), True


def _from_rows(reader: Reader, scope: Scope) -> Sums:
    sums, failed = reader.restart_sums(scope, most=MOST_RESTARTS), count_failures(reader, scope)
    return sums, failed, sum(part.restarts for part in sums) < MOST_RESTARTS and failed.complete


def _by(sums: Sequence[RestartSum], field: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in sums:
        name = getattr(part, field).value
        counts[name] = counts.get(name, 0) + part.restarts
    return dict(sorted(counts.items()))
