"""A real PostgreSQL of the tests' own, run from a folder of programs and never as root."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg import sql

from tests.servers.process import LOOPBACK, ServerProcess, dropped_root

SUPERUSER = "postgres"
APP_ROLE, READER_ROLE = "role_of_apps", "role_of_auditors"
APP, READER = "an_app", "an_auditor"
"""Logins of every server; each is a member of its role, and nothing else."""
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=256MB")
_COPIES_FILES_FROM = 15_00_00
"""The version from which a database can be made by copying files: half the time, for its log is not written."""


class PostgresServer(ServerProcess):
    """A cluster made by ``initdb`` in ``folder``; it listens on loopback and on a socket in ``folder``.

    ``durable`` keeps the settings that an operator has; without it a commit does not
    wait for the disk, which is enough wherever the machine does not lose power.
    """

    stop_signal = signal.SIGINT  # "fast": open sessions are ended

    def __init__(self, programs: Path, folder: Path, *, durable: bool = False, settings: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._settings = tuple(settings)
        self.programs = programs
        self.durable = durable
        self.run_as = dropped_root()
        self._numbers = count(1)
        self._initialise()

    def url(self, database: str) -> str:
        """As ``ORCHESTRATOR_DATABASE_URL`` takes it."""
        return f"postgresql+psycopg://{SUPERUSER}@{LOOPBACK}:{self.port}/{database}"

    def command(self) -> list[str]:
        settings = [f"listen_addresses={LOOPBACK}", "max_connections=200", *(() if self.durable else _FAST)]
        settings += self._settings
        options = [word for setting in settings for word in ("-c", setting)]
        return [str(self.programs / "postgres"), "-D", "data", "-k", str(self.folder), "-p", str(self.port), *options]

    def answers(self) -> bool:
        try:
            with self.connect(timeout_s=1):
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, database: str = "postgres", *, timeout_s: int = 10) -> psycopg.Connection:
        """Return a connection that commits every statement by itself."""
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            user=SUPERUSER,
            dbname=database,
            connect_timeout=timeout_s,
            autocommit=True,
        )

    def stop_immediately(self) -> None:
        """End it as ``pg_ctl stop -m immediate`` does: no checkpoint, and the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def demote(self) -> None:
        """End it, and have the same cluster come back as a standby, which reads and takes no writes."""
        self.stop_immediately()
        self._standby_signal.touch()
        if self.run_as:
            os.chown(self._standby_signal, self.run_as["user"], self.run_as["group"])
        self.start()

    @property
    def is_standby(self) -> bool:
        """From ``demote`` to ``promote``."""
        return self._standby_signal.exists()

    @property
    def _standby_signal(self) -> Path:
        return self.folder / "data" / "standby.signal"

    def promote(self) -> None:
        """Make a standby the primary."""
        with self.connect() as connection:
            found = connection.execute("SELECT pg_promote(wait => true, wait_seconds => 20)").fetchone()
        assert found == (True,), "the standby was not promoted"

    def create_database(self, template: str = "template1") -> str:
        """Return the name of a new database with what ``template`` holds; nobody may be connected to that."""
        name = f"test_{next(self._numbers)}"
        with self.connect() as connection:
            copies = connection.info.server_version >= _COPIES_FILES_FROM
            words = sql.SQL("CREATE DATABASE {} TEMPLATE {}" + (" STRATEGY file_copy" if copies else ""))
            connection.execute(words.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, and end the sessions in it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_logins(self) -> None:
        """Make the roles of production, without any privilege yet, and a login for each."""
        with self.connect() as connection:
            for login, role in ((APP, APP_ROLE), (READER, READER_ROLE)):
                connection.execute(f"CREATE ROLE {role} NOLOGIN")
                connection.execute(f"CREATE ROLE {login} LOGIN IN ROLE {role}")

    def _initialise(self) -> None:
        options = ["-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [self.programs / "initdb", "-D", "data", *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self.run_as,
        )
        assert made.returncode == 0, f"initdb failed:\n{made.stdout}"


def as_login(url: str, login: str) -> str:
    """Return the URL of the same database for another login."""
    before, _, after = url.partition("@")
    return f"{before.rpartition('//')[0]}//{login}@{after}"


@contextmanager
def new_postgres(
    programs: Path, *, durable: bool = False, within: Path | None = None, settings: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """Yield a running server with an empty cluster (in a folder of ``within``), and leave nothing of it behind."""
    # Not pytest's tmp_path: its folders are closed to the user that root drops to, and too long for a socket's path.
    with TemporaryDirectory(prefix="test-postgres-", dir=within) as folder:
        owner = dropped_root()
        if owner:
            os.chown(folder, owner["user"], owner["group"])
        server = PostgresServer(programs, Path(folder), durable=durable, settings=settings)
        server.start()
        try:
            server.create_logins()
            yield server
        finally:
            server.stop()
