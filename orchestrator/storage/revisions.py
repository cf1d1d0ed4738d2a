"""Which revision of the schema a database is at, and whether this version serves it.

Every process asks that, so it is asked without Alembic: importing it takes a sixth of a process's start.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

import migrations
from orchestrator.errors import BeyondMigration, MigrationsPending
from orchestrator.storage.sql.statements import own_error, own_errors

FOREIGN = "it is not this product's, or was damaged; nothing was changed; name another database, or restore this one"

_NUMBER = re.compile(r"\d{4}", re.ASCII)
_FILE = re.compile(r"\d{4}_\d\d_\d\d_(\d{4})_\w+\.py", re.ASCII)
"""As ``file_template`` in pyproject.toml has Alembic name a migration."""
_VERSION = sa.table("alembic_version", sa.column("version_num", sa.String))


@cache
def known_revisions() -> tuple[str, ...]:
    """Return this version's revisions, oldest first: 0001, 0002, ..."""
    files = (Path(migrations.__path__[0]) / "versions").iterdir()
    return tuple(sorted(found[1] for file in files if (found := _FILE.fullmatch(file.name))))


def newest_revision() -> str:
    """Return the revision that this version migrates to."""
    return known_revisions()[-1]


def current_revision(connection: sa.Connection) -> str | None:
    """Return the database's revision; None where it has none. Raises ``BeyondMigration`` where it cannot be told."""
    try:
        if not sa.inspect(connection).has_table(_VERSION.name):
            return None
        heads = connection.execute(sa.select(_VERSION)).scalars().all()
    except (exc.OperationalError, exc.ProgrammingError) as error:
        if isinstance(own_error(error), MigrationsPending):  # the table is there, its column is not
            raise BeyondMigration(f"the database's alembic_version has other columns: {FOREIGN}") from error
        raise
    if len(heads) > 1 or None in heads:
        listed = ", ".join(sorted(str(head)[:60] for head in heads))
        raise BeyondMigration(f"the database's alembic_version holds {listed}, not one revision: {FOREIGN}")
    return heads[0] if heads else None


def revisions_ahead(connection: sa.Connection) -> int:
    """Return how many revisions the database is ahead of this version; below 0: it is behind.

    Raises ``BeyondMigration`` for a revision that no version of this product can have written.
    """
    current, known = current_revision(connection), known_revisions()
    if current is None:
        return -len(known)
    if current in known:
        return known.index(current) + 1 - len(known)
    if _NUMBER.fullmatch(current) is None or int(current) < int(known[-1]):
        raise BeyondMigration(f"the database is at revision {current[:60]!r}, which this product never had: {FOREIGN}")
    return int(current) - int(known[-1])


def too_new(connection: sa.Connection) -> BeyondMigration:
    """Return the error that a database more than one revision ahead is to be refused with."""
    current, newest = current_revision(connection), newest_revision()
    return BeyondMigration(f"the database is at revision {current}, this version knows {newest}; upgrade this process")


def check_current(connection: sa.Connection) -> None:
    """Raise ``MigrationsPending`` unless the database is at the revision of this version, or one ahead.

    Migrations only add (CONTRIBUTING): the version before the newest one goes on while an upgrade rolls.
    ``BeyondMigration`` is the one of them for a database that no migration of this version makes fit.
    """
    with own_errors():
        current, ahead = current_revision(connection), revisions_ahead(connection)
    if ahead > 1:
        raise too_new(connection)
    if ahead < 0:
        needed = newest_revision()
        raise MigrationsPending(
            f"the database is at revision {current or 'none'}, this version needs {needed}; run `orchestrator migrate`"
        )
