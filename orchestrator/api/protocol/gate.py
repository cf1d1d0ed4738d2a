"""Serve from a database only once it has been seen to be whole: there, and at this version's revision."""

from __future__ import annotations

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from orchestrator.errors import Unavailable
from orchestrator.ports.store import EventStore


class Gate:
    """Open after a good check; closed again by the first sign of trouble."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.is_open = False

    async def pass_through(self) -> None:
        """Return if the database can serve. Raises ``StorageUnavailable`` or ``MigrationsPending``."""
        if not self.is_open:
            await run_in_threadpool(self._store.check, reads_only=True)  # a write is refused by its own statement
            self.is_open = True

    def close(self) -> None:
        """Check again before the next request is served."""
        self.is_open = False


async def need_database(request: Request) -> None:
    """Refuse the request while the database cannot serve it, whatever the statement would do."""
    gate: Gate = request.app.state.gate
    try:
        await gate.pass_through()
    except Unavailable:
        gate.close()
        raise
