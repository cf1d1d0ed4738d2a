"""Who may carry out a restart: a worker that serves the workspace's executor and its pool (CONTRACT section 8, Claims).

By its name alone an executor is not enough: a unit, a container behind a socket or a program is a thing of one host.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain.state import DEFAULT_POOL, Registration


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a worker serves. It starts the cycles of workspaces whose executor and pool are both among these."""

    executors: frozenset[str]
    pools: frozenset[str] = frozenset({DEFAULT_POOL})

    def serves(self, registration: Registration) -> bool:
        """Return whether a worker that serves this may start a cycle of such a workspace."""
        return registration.executor in self.executors and registration.pool in self.pools
