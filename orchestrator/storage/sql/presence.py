"""Which workers are there and what nobody serves, in a SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from orchestrator.domain.encoding import canonical_json
from orchestrator.domain.serving import Need, SeenWorker, Serving
from orchestrator.domain.state import Phase
from orchestrator.storage.sql.many_rows import upsert_many
from orchestrator.storage.sql.schema import executors_away, registrations, workers, workspaces
from orchestrator.storage.sql.statements import Statements

_FORGOTTEN_AFTER = timedelta(days=1)
_names = msgspec.json.Decoder(list[str]).decode

WAITS = workspaces.c.phase.in_([sa.literal_column(f"'{phase.value}'") for phase in (Phase.QUEUED, Phase.RETRYING)])
"""A restart of the workspace waits for a worker, or for its time."""
IS_AWAY = sa.and_(
    executors_away.c.executor == registrations.c.executor, executors_away.c.pool == registrations.c.pool, WAITS
)
"""Nobody serves what the workspace's restart waits for."""


def note_worker(sql: Statements, seen: SeenWorker) -> None:
    """Note that a worker is there; the workers that were not seen for a day are forgotten."""
    row = {
        "name": seen.name,
        "host": seen.host,
        "executors": canonical_json(sorted(seen.serving.executors)),
        "pools": canonical_json(sorted(seen.serving.pools)),
        "slots": seen.slots,
        "started_at": seen.seen_at,
        "seen_at": seen.seen_at,
    }
    mine = workers.c.name == seen.name
    if sql.run(sa.update(workers).where(mine).values(seen_at=seen.seen_at)).rowcount == 0:
        sql.run(sa.delete(workers).where(workers.c.seen_at < seen.seen_at - _FORGOTTEN_AFTER))
        upsert_many(sql, workers, [row])


def read_workers(sql: Statements) -> list[SeenWorker]:
    """Return the workers that were noted."""
    found = sql.run(sa.select(workers).order_by(workers.c.name)).mappings()
    return [
        SeenWorker(
            name=row["name"],
            host=row["host"],
            serving=Serving(executors=frozenset(_names(row["executors"])), pools=frozenset(_names(row["pools"]))),
            slots=row["slots"],
            seen_at=row["seen_at"],
        )
        for row in found
    ]


def waiting_for(sql: Statements, now: sa.ColumnElement[datetime]) -> dict[Need, datetime]:
    """Return for what executors and pools restarts wait, and since when the longest of each is ready.

    The instant is read first, and need looked up row by row. Of an instant that it does not know PostgreSQL expects
    a third of all workspaces to be ready, and of a join that it needs all registrations (measured, 60,000: 0.5 s).
    """
    at: datetime = sql.run(sa.select(now)).scalar_one()
    own = registrations.c.workspace == workspaces.c.id
    executor, pool = (
        sa.select(column).where(own).scalar_subquery() for column in (registrations.c.executor, registrations.c.pool)
    )
    ready = sa.select(executor.label("executor"), pool.label("pool"), workspaces.c.ready_at)
    rows = ready.where(workspaces.c.ready_at <= at).subquery()
    oldest = sa.func.min(rows.c.ready_at, type_=workspaces.c.ready_at.type)
    by_need = sql.run(sa.select(rows.c.executor, rows.c.pool, oldest).group_by(rows.c.executor, rows.c.pool))
    return {(executor, pool): ready_at for executor, pool, ready_at in by_need if executor is not None}


def read_away(sql: Statements) -> dict[Need, datetime]:
    """Return what nobody serves as the log says, and since when."""
    listed = sa.select(executors_away.c.executor, executors_away.c.pool, executors_away.c.since)
    return {(executor, pool): since for executor, pool, since in sql.run(listed)}


def save_away(sql: Statements, came: Sequence[tuple[Need, datetime, int]], went: Sequence[Need]) -> None:
    """Keep what is away from now on, and drop what is back."""
    for executor, pool in went:
        row = (executors_away.c.executor == executor) & (executors_away.c.pool == pool)
        sql.run(sa.delete(executors_away).where(row))
    new = [
        {"executor": executor, "pool": pool, "since": since, "position": position}
        for (executor, pool), since, position in came
    ]
    upsert_many(sql, executors_away, new)


def count_unclaimable(sql: Statements) -> int:
    """Count the workspaces whose restart waits for what nobody serves; nothing is counted while nobody is away.

    What is away first: as a join, SQLite read all registrations (measured, 60,000: 60 ms at each poll of `readyz`).
    What waits has an instant from which it may start, and is few.
    """
    joined = registrations.join(workspaces, workspaces.c.id == registrations.c.workspace)
    waiting = sa.select(sa.func.count()).select_from(joined).where(IS_AWAY, workspaces.c.ready_at.is_not(None))
    of_one = waiting.correlate(executors_away).scalar_subquery()
    counted = sa.select(sa.func.coalesce(sa.func.sum(of_one), 0)).select_from(executors_away)
    return int(sql.run(counted).scalar_one())
