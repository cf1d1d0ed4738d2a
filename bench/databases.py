"""The generated log on a running PostgreSQL: loaded by COPY from the SQLite file, and kept in ``.bench/`` like it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import sqlalchemy as sa
from psycopg import sql

from bench.log_files import TABLES, Wanted
from orchestrator.storage.migrate import upgrade
from tests.servers.postgres import PostgresServer
from tests.servers.process import dropped_root
from tests.servers.programs import find_postgres, runnable

_DATABASE = "postgres"


@contextmanager
def sqlite_url(source: Path, wanted: Wanted) -> Iterator[str]:
    """Yield the URL of a SQLite database with the log."""
    yield f"sqlite:///{source}"


@contextmanager
def postgres_url(source: Path, wanted: Wanted) -> Iterator[str]:
    """Yield the URL of a PostgreSQL database with the log, on a server of its own that ends with the block."""
    with ExitStack() as stack:
        programs = stack.enter_context(runnable(find_postgres(os.environ)))
        folder = wanted.folder
        if not _reachable(folder):  # as in a clone under `mktemp -d`: the server's user can't enter it
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-cluster-")))
            folder.chmod(0o755)
        kept = folder / f"{wanted.name}.{_version(programs)}"
        if wanted.fresh and kept.exists():
            shutil.rmtree(kept)
        if not kept.exists():
            wanted.say(f"loading it into PostgreSQL ({kept.name})")
            _load(programs, source, kept)
        yield stack.enter_context(_server(programs, kept)).url(_DATABASE)


def copy_to_postgres(path: Path, connection: psycopg.Connection) -> None:
    """COPY the rows of a generated SQLite file into a migrated, empty database, and tend it as its server would."""
    with closing(sqlite3.connect(path)) as source:
        connection.execute("DELETE FROM counters")  # the migrations leave a row there
        for table in TABLES:
            names = [column.name for column in table.columns]
            listed = sql.SQL(", ").join(map(sql.Identifier, names))
            into = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), listed)
            with connection.cursor() as cursor, cursor.copy(into) as copy:
                for row in source.execute(_all_rows(table)):
                    copy.write_row(row)
    connection.execute("SELECT setval(pg_get_serial_sequence('events', 'position'), max(position)) FROM events")
    connection.execute("VACUUM (ANALYZE)")


def _all_rows(table: sa.Table) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    return f"SELECT {names} FROM {table.name} ORDER BY 1"


def _load(programs: Path, source: Path, kept: Path) -> None:
    """Make a cluster with the log beside ``kept``, and put it there when it is whole."""
    making = kept.with_name(f"{kept.name}.on-the-way")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    with _server(programs, making) as server:
        upgrade(server.url(_DATABASE))
        with server.connect(_DATABASE) as connection:
            copy_to_postgres(source, connection)
    making.rename(kept)


class _KeptServer(PostgresServer):
    """A server over a cluster that outlives it; it is made where there is none."""

    def _initialise(self) -> None:
        if not (self.folder / "data" / "PG_VERSION").exists():
            super()._initialise()


@contextmanager
def _server(programs: Path, cluster: Path) -> Iterator[PostgresServer]:
    """Run a server over a cluster's folder. Its socket and log lie elsewhere: a socket's path must be short."""
    with TemporaryDirectory(prefix="bench-postgres-") as folder:
        owner = dropped_root()
        if owner:
            for path in (Path(folder), cluster):
                os.chown(path, owner["user"], owner["group"])
        (Path(folder) / "data").symlink_to(cluster)
        server = _KeptServer(programs, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _reachable(folder: Path) -> bool:
    """Return whether the server's user can enter a folder."""
    try:
        return subprocess.run(["true"], cwd=folder, check=False, **dropped_root()).returncode == 0
    except PermissionError:
        return False


def _version(programs: Path) -> str:
    """Return ``postgres18`` and the like: a cluster is of one major version."""
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return f"postgres{said.split()[-1].split('.')[0]}"
