"""Which source a reading command reads: the options first, then ``ORCHESTRATOR_URL``, then a database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.cli.client import Client
from orchestrator.cli.reading.api import ApiSource
from orchestrator.cli.reading.database import DatabaseSource, reading
from orchestrator.cli.reading.source import Source
from orchestrator.errors import InvalidInput


def chosen_url(url: str | None, database_url: str | None, data: Path | None) -> str | None:
    """Return the server to ask, None for a database. Raises ``InvalidInput`` where options name both."""
    names_database = database_url is not None or data is not None
    if url is not None and names_database:
        raise InvalidInput("give --url (a running server), or --database-url or --data (a database), not both")
    return url if url is not None or names_database else os.environ.get("ORCHESTRATOR_URL") or None


@contextmanager
def chosen_source(url: str | None, database_url: str | None, data: Path | None) -> Iterator[Source]:
    """Give what to read. Raises ``InvalidInput`` where both a server and a database are named by options."""
    server = chosen_url(url, database_url, data)
    if server is None:
        with reading(database_url, data) as store:
            yield DatabaseSource(store)
    else:
        with Client(server) as client:
            yield ApiSource(client)
