"""What waits over all workspaces, at a cost that does not grow with them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import sqlalchemy as sa

from orchestrator.domain.state import Phase
from orchestrator.ports.store import Backlog
from orchestrator.storage.sql.database_time import DatabaseTime
from orchestrator.storage.sql.index_ranges import limit_of
from orchestrator.storage.sql.kept_sums import NEAR, near_position
from orchestrator.storage.sql.schema import backlog_sums, events, leases, summed_workspaces, workspaces
from orchestrator.storage.sql.statements import ONE, Statements
from orchestrator.storage.sql.sums_to_add import waits

Waiting = dict[str, Counter[str]]
"""By phase: ``workspaces``, ``pending_writes``, ``waiting`` (workspaces with something pending)."""


def read_backlog(sql: Statements, time: DatabaseTime) -> Backlog:
    """Return what waits: from the kept sums, or by a pass over all workspaces where those are far behind."""
    kept_for = near_position(sql)
    found = passed_over(sql) if kept_for is None else from_sums(sql, kept_for)
    now: datetime = sql.run(sa.select(time.clock())).scalar_one()
    return Backlog(
        now=now,
        pending_writes=sum(one["pending_writes"] for one in found.values()),
        pending_workspaces=sum(one["waiting"] for one in found.values()),
        oldest_due_at=_oldest_due_at(sql),
        running=_running(sql),
        phases={Phase(phase): one["workspaces"] for phase, one in found.items() if one["workspaces"]},
    )


def passed_over(sql: Statements) -> Waiting:
    """Return what all workspaces' rows say."""
    by_phase = sa.select(
        workspaces.c.phase,
        sa.func.count().label("workspaces"),
        sa.func.sum(workspaces.c.pending_count).label("pending_writes"),
        sa.func.count().filter(waits()).label("waiting"),
    ).group_by(workspaces.c.phase)
    return {row.phase: _counter(row) for row in sql.run(by_phase)}


def from_sums(sql: Statements, kept_for: int) -> Waiting:
    """Return the same from the kept sums, and the rows of the workspaces that had an event since.

    No other row differs from what the sums hold of it: a row is changed together with an event of its workspace.
    """
    kept = backlog_sums.c
    summed = sa.select(
        kept.phase, *(sa.func.sum(kept[name]).label(name) for name in ("workspaces", "pending_writes", "waiting"))
    ).group_by(kept.phase)
    found = {row.phase: _counter(row) for row in sql.run(summed)}
    for row in sql.run(_changed_since(kept_for)):
        now = found.setdefault(row.phase, Counter())
        now.update({"workspaces": 1, "pending_writes": row.pending_count, "waiting": int(row.waits)})
        if row.phase_before is not None:
            before = found.setdefault(row.phase_before, Counter())
            before.subtract({"workspaces": 1, "pending_writes": row.writes_before, "waiting": row.waiting_before})
    return found


def _changed_since(position: int) -> sa.Select[tuple[str, int, bool, str | None, int, int]]:
    before = summed_workspaces.c
    each = sa.select(events.c.workspace).where(events.c.position > position).order_by(events.c.position)
    each = each.limit(limit_of(NEAR))
    # The limit keeps SQLite from looking for the distinct ones in the index by workspace, each of all there are.
    named = sa.select(each.subquery().c.workspace).distinct().subquery("named")
    rows = named.join(workspaces, workspaces.c.id == named.c.workspace)
    rows = rows.outerjoin(summed_workspaces, before.workspace == named.c.workspace)
    return sa.select(
        workspaces.c.phase,
        workspaces.c.pending_count,
        waits().label("waits"),
        before.phase.label("phase_before"),
        before.pending_writes.label("writes_before"),
        before.waiting.label("waiting_before"),
    ).select_from(rows)


def _counter(row: sa.Row[tuple[str, int, int, int]]) -> Counter[str]:
    return Counter(workspaces=row.workspaces, pending_writes=int(row.pending_writes), waiting=int(row.waiting))


def _oldest_due_at(sql: Statements) -> datetime | None:
    """Return the earliest instant at which a window or a restart is due: the first entry of either index."""
    first = [
        sa.select(sa.select(column).where(column.is_not(None)).order_by(column).limit(ONE).subquery())
        for column in (workspaces.c.due_at, workspaces.c.ready_at)
    ]
    return min((row[0] for row in sql.run(sa.union_all(*first))), default=None)


def _running(sql: Statements) -> int:
    """Count the open cycles, also those that an older version leased in the workspace's row."""
    leased = sa.select(sa.func.count()).select_from(leases).scalar_subquery()
    in_rows = sa.select(sa.func.count()).where(workspaces.c.lease_until.is_not(None)).scalar_subquery()
    running: int = sql.run(sa.select(leased + in_rows)).scalar_one()
    return running
