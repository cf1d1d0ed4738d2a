"""Alembic's way in: on the connection that ``orchestrator migrate`` hands over, or on ``-x url=...``."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context

from migrations.without_stopping import WRITERS_GO_ON
from orchestrator.storage.engines import migration_engine
from orchestrator.storage.sql.schema import metadata
from orchestrator.storage.urls import SQLITE, database_url


def migrate(connection: sa.Connection) -> None:
    """Run the wanted migrations in the connection's transaction; if it is in none, on PostgreSQL in one each."""
    goes_on: dict[str, Any] = {WRITERS_GO_ON: not connection.in_transaction()}
    context.configure(
        connection=connection,
        transaction_per_migration=goes_on[WRITERS_GO_ON],
        target_metadata=metadata,
        # SQLite reports defaults and identities in its own words: comparing them finds differences that are none.
        compare_server_default=connection.dialect.name != SQLITE,
        **goes_on,
    )
    with context.begin_transaction():
        context.run_migrations()


def migrate_url(text: str) -> None:
    """Run the wanted migrations on a database of their own connection."""
    engine = migration_engine(database_url(text))
    try:
        with engine.begin() as connection:
            migrate(connection)
    finally:
        engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    migrate_url(context.get_x_argument(as_dictionary=True)["url"])
