"""What the URL of a database may look like."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import exc

from orchestrator.errors import InvalidInput

POSTGRESQL = "postgresql"
SQLITE = "sqlite"
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite",
}


def database_url(text: str) -> sa.URL:
    """Return the URL with the driver this product uses.

    Raises ``InvalidInput`` for what is no URL, for other databases, and for SQLite without a file: each
    connection would have a database of its own there.
    """
    try:
        url = sa.make_url(text)
    except exc.ArgumentError:
        raise InvalidInput("the database URL cannot be read; write postgresql://... or sqlite:///PATH") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidInput(f"databases of kind {url.drivername!r} are not supported; use postgresql or sqlite")
    if driver == SQLITE and url.database in (None, "", ":memory:"):
        raise InvalidInput("the SQLite URL names no file; write sqlite:///PATH")
    return url.set(drivername=driver)
