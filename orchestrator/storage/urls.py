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

_UNREADABLE = (
    "the database URL (ORCHESTRATOR_DATABASE_URL, or --database-url) cannot be read; write"
    " postgresql://USER:PASSWORD@HOST:PORT/NAME or sqlite:///PATH, with @ : / ? # % in a password percent-encoded"
    " (%40 %3A %2F %3F %23 %25), or the password as it is in ORCHESTRATOR_DATABASE_PASSWORD"
)


def database_url(text: str) -> sa.URL:
    """Return the URL with the driver this product uses.

    Raises ``InvalidInput`` for what is no URL, for other databases, and for SQLite without a file: each
    connection would have a database of its own there. No message holds a part of the URL: it may be one of a password.
    """
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        raise InvalidInput(_UNREADABLE) from None
    if url.get_backend_name() != SQLITE and text.count("@") > 1:
        raise InvalidInput(_UNREADABLE)  # the rest of a password would be taken for the host, and shown as such
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidInput(f"databases of kind {url.drivername!r} are not supported; use postgresql or sqlite")
    if driver == SQLITE and url.database in (None, "", ":memory:"):
        raise InvalidInput("the SQLite URL names no file; write sqlite:///PATH")
    return url.set(drivername=driver)


def database_name(text: str) -> str:
    """Return which database a URL names, to be shown: neither its password nor its options. Raises as above."""
    url = database_url(text)
    hosts = url.query.get("host", ())
    named = [hosts] if isinstance(hosts, str) else [*hosts]
    shown = sa.URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return shown.set(query={"host": named} if named else {}).render_as_string()
