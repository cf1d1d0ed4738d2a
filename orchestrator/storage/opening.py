"""Which store serves a URL."""

from __future__ import annotations

from orchestrator.ports.store import Clock, EventStore
from orchestrator.storage.committer import Committer
from orchestrator.storage.postgres import PostgresEventStore
from orchestrator.storage.sqlite import SqliteEventStore
from orchestrator.storage.urls import SQLITE, database_url


def open_store(
    url: str, clock: Clock | None = None, *, shares_commits: bool = False, company_wait_ms: int = 0
) -> EventStore:
    """Return the store of a database URL; nothing is connected yet.

    ``clock`` stands in for the host's on SQLite; PostgreSQL has its server's. With ``shares_commits`` what several
    threads write at a time is committed together, by a thread of the store's own, which waits ``company_wait_ms`` for
    what may come along. Raises ``InvalidInput`` for
    a URL that names no database this product knows.
    """
    is_sqlite = database_url(url).get_backend_name() == SQLITE
    store = SqliteEventStore(url, clock) if is_sqlite else PostgresEventStore(url)
    if shares_commits:
        store.committing = Committer(store, company_wait_ms=company_wait_ms)
    return store
