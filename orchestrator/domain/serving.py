"""Who may carry out a restart: a worker that serves the workspace's executor and its pool (CONTRACT section 8, Claims).

By its name alone an executor is not enough: a unit, a container behind a socket or a program is a thing of one host.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.events import ExecutorAway, ExecutorBack
from orchestrator.domain.state import DEFAULT_POOL, Registration

PATIENCE_TICKS = 3
"""For so long nobody may be there before that is said."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a worker serves. It starts the cycles of workspaces whose executor and pool are both among these."""

    executors: frozenset[str]
    pools: frozenset[str] = frozenset({DEFAULT_POOL})

    def serves(self, registration: Registration) -> bool:
        """Return whether a worker that serves this may start a cycle of such a workspace."""
        return registration.executor in self.executors and registration.pool in self.pools


@dataclass(frozen=True, kw_only=True)
class SeenWorker:
    """A worker, what it serves, and when it last said so."""

    name: str
    host: str
    serving: Serving
    slots: int
    seen_at: datetime


Need = tuple[str, str]
"""An executor and a pool."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a restart may wait, and a worker say nothing, before nobody is said to be there."""

    waits: timedelta
    gone_after: timedelta


def absences(
    waiting: Mapping[Need, datetime],
    workers: Collection[SeenWorker],
    away: Collection[Need],
    now: datetime,
    patience: Patience,
) -> list[ExecutorAway | ExecutorBack]:
    """Return what changed in who is away.

    ``waiting``: for what restarts wait, and since when the longest of them is ready. ``away``: what was said to be.
    """
    found: list[ExecutorAway | ExecutorBack] = []
    for need in sorted({*waiting, *away}):
        executor, pool = need
        since = _unserved_since(need, waiting.get(need), workers, now, patience)
        if since is not None and need not in away:
            found.append(ExecutorAway(executor=executor, pool=pool, since=since))
        elif since is None and need in away:
            found.append(ExecutorBack(executor=executor, pool=pool))
    return found


def _unserved_since(
    need: Need, ready_at: datetime | None, workers: Collection[SeenWorker], now: datetime, patience: Patience
) -> datetime | None:
    """Return since when something has waited for it and nobody was there; None: nothing waits, or somebody is."""
    if ready_at is None or now - ready_at < patience.waits:
        return None
    executor, pool = need
    seen = [one.seen_at for one in workers if executor in one.serving.executors and pool in one.serving.pools]
    if any(now - at < patience.gone_after for at in seen):
        return None
    return max([ready_at, *seen])
