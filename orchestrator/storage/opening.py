"""Which store serves a URL."""

from __future__ import annotations

from orchestrator.ports.store import Clock, EventStore
from orchestrator.storage.postgres import PostgresEventStore
from orchestrator.storage.sqlite import SqliteEventStore
from orchestrator.storage.urls import SQLITE, database_url


def open_store(url: str, clock: Clock | None = None) -> EventStore:
    """Return the store of a database URL; nothing is connected yet.

    ``clock`` stands in for the host's on SQLite; PostgreSQL has its server's. Raises ``InvalidInput`` for
    a URL that names no database this product knows.
    """
    if database_url(url).get_backend_name() == SQLITE:
        return SqliteEventStore(url, clock)
    return PostgresEventStore(url)
