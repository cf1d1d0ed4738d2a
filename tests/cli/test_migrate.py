"""``orchestrator migrate`` and its roles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.private_files import lock_folder
from orchestrator.storage.engines import migration_engine
from orchestrator.storage.migrate import downgrade
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import database_name, database_url
from tests.cli.conftest import Ran, Run
from tests.cli.test_reading import one_error
from tests.servers.postgres import APP, APP_ROLE, READER, READER_ROLE, PostgresServer, as_login
from tests.system.fork_server import ForkServer
from tests.system.processes import OrchestratorProcess


@pytest.mark.parametrize("told", ["options", "settings"])
def test_roles_are_granted_to(
    told: str, run: Run, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres_server.create_database()
    url = postgres_server.url(name)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", url)
    roles = {"--app-role": APP_ROLE, "--reader-role": READER_ROLE}
    if told == "settings":
        monkeypatch.setenv("ORCHESTRATOR_APP_ROLE", APP_ROLE)
        monkeypatch.setenv("ORCHESTRATOR_READER_ROLE", READER_ROLE)
    ran = run("migrate", *(word for pair in roles.items() for word in pair if told == "options"))
    assert (ran.code, ran.out) == (0, f"Migrated {database_name(url)}; policy floor at version 1\n")
    assert run("replay", "--database-url", as_login(url, READER)).code == 0
    store = open_store(as_login(url, APP))
    store.ticked()
    store.close()
    postgres_server.drop_database(name)


def test_migrating_without_being_the_owner_is_one_line(run: Run, app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", app_url)
    ran = run("migrate", "--app-role", APP_ROLE)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "cannot migrate: this login may not do that: " in ran.err


def test_migrating_an_empty_database_of_somebody_else_is_said_as_that(
    run: Run, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that the database is damaged, or another product's."""
    name = postgres_server.create_database()
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", as_login(postgres_server.url(name), APP))
    ran = run("migrate")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "cannot migrate: this login may not do that: permission denied for schema public" in ran.err
    postgres_server.drop_database(name)


def test_roles_on_sqlite_are_one_line(run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("ORCHESTRATOR_READER_ROLE", READER_ROLE)
    ran = run("migrate")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "--reader-role (ORCHESTRATOR_READER_ROLE): SQLite has no roles" in ran.err


def test_check_says_whether_the_database_is_served_and_changes_nothing(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", sqlite_url)
    assert run("migrate", "--check") == Ran(0, "This version serves the database as it is.\n", "")
    downgrade(sqlite_url)
    for _ in range(2):
        ran = run("migrate", "--check")
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert "orchestrator migrate" in ran.err


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, and the one that the settings name."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'orchestrator.db'}"
        monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", url)
        yield url
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", server.url(name))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of this version, and the one that the settings name."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", found)
    return found


def carry_out(url: str, *statements: str) -> None:
    engine = migration_engine(database_url(url))
    with engine.begin() as connection:
        for words in statements:
            connection.execute(sa.text(words))
    engine.dispose()


def ask(url: str, words: str) -> object:
    engine = migration_engine(database_url(url))
    with engine.connect() as connection:
        found: object = connection.execute(sa.text(words)).scalar_one()
    engine.dispose()
    return found


def move_ahead(url: str, by: int) -> str:
    revision = f"{int(str(ask(url, 'SELECT version_num FROM alembic_version'))) + by:04}"
    carry_out(url, f"UPDATE alembic_version SET version_num = '{revision}'")
    return revision


def test_one_revision_ahead_is_said_in_a_line_and_nothing_is_changed(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback: the `migrate` of the version before, on which its processes wait, ends with 0."""
    revision = move_ahead(url, 1)
    monkeypatch.setenv("ORCHESTRATOR_POLICY_QUIET", "7s")
    if url.startswith("postgresql"):
        monkeypatch.setenv("ORCHESTRATOR_APP_ROLE", "nobody_made_this_role")
    ran = run("migrate")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"The database is at revision {revision}, one ahead of this version's 0")
    assert ran.out.endswith("nothing was changed: no table, no role's privileges, no policy floor\n")
    assert ran.out.count("\n") == 1
    assert ask(url, "SELECT version_num FROM alembic_version") == revision
    assert ask(url, "SELECT count(*) FROM events") == 0
    if url.startswith("postgresql"):
        assert not ask(url, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'nobody_made_this_role')")
    for command in (["workspaces"], ["tail"], ["replay"]):
        assert run(*command).code == 0


@pytest.mark.parametrize("command", ["migrate", "workspaces", "tail", "replay", "api"])
def test_two_revisions_ahead_is_one_line(command: str, run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_BROKER_URL", "redis://127.0.0.1:1/0")
    revision = move_ahead(url, 2)
    ran = run(command)
    assert (ran.code, ran.out) == (2, "")
    assert f"the database is at revision {revision}, this version knows 0" in one_error(ran.err)
    assert "; upgrade this process" in ran.err


def test_a_worker_two_revisions_ahead_is_one_line(postgres_url: str) -> None:
    """Its child finds it, and its parent ends as the child did. Not in this process: a worker's parent forks."""
    revision = move_ahead(postgres_url, 2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    environment |= {"ORCHESTRATOR_DATABASE_URL": postgres_url, "ORCHESTRATOR_BROKER_URL": "redis://127.0.0.1:1/0"}
    worker = [sys.executable, "-m", "orchestrator", "worker"]
    ran = subprocess.run(worker, env=environment, capture_output=True, check=False, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    [error] = [line for line in ran.stderr.splitlines() if line.startswith("orchestrator: error: ")]
    assert f"the database is at revision {revision}, this version knows 0" in error
    assert error.endswith("; upgrade this process")


@pytest.mark.parametrize(
    ("revision", "words"), [("9999", "upgrade this process"), ("abc", "which this product never had")]
)
def test_up_on_what_it_cannot_serve_is_one_line(
    revision: str, words: str, sqlite_url: str, tmp_path: Path, forks: ForkServer
) -> None:
    carry_out(sqlite_url, f"UPDATE alembic_version SET version_num = '{revision}'")
    data = Path(sqlite_url.removeprefix("sqlite:///")).parent
    args = ("up", "--data", str(data), "--port", "0")
    up = OrchestratorProcess("up", args, env=os.environ, log=tmp_path / "up.log", forks=forks)
    assert up.wait(60) == 2
    assert words in one_error(up.output)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE alembic_version SET version_num = '1a2b3c4d'", "at revision '1a2b3c4d', which this product never had"),
        ("UPDATE alembic_version SET version_num = '4'", "at revision '4', which this product never had"),
        ("UPDATE alembic_version SET version_num = '0000'", "at revision '0000', which this product never had"),
        ("UPDATE alembic_version SET version_num = '\u00b2\u00b2'", "which this product never had"),
        ("INSERT INTO alembic_version VALUES ('0001')", "alembic_version holds 0001, 0"),
        ("DELETE FROM alembic_version", "a table events and workspaces, but no revision in alembic_version"),
        ("DROP TABLE alembic_version", "a table events and workspaces, but no revision in alembic_version"),
        ("ALTER TABLE alembic_version RENAME version_num TO version", "alembic_version has other columns"),
    ],
)
def test_a_revision_that_is_none_is_one_line(statement: str, words: str, run: Run, url: str) -> None:
    carry_out(url, statement)
    ran = run("migrate")
    assert (ran.code, ran.out) == (2, "")
    assert words in one_error(ran.err)
    assert "nothing was changed" in ran.err
    reading = run("workspaces")
    assert (reading.code, reading.out) == (2, "")
    one_error(reading.err)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE events (id INTEGER)"],
        ["CREATE TABLE policies (id INTEGER)"],
        ["CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES ('0001')"],
        ["CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES ('8d1f0a')"],
        ["CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES (NULL)"],
    ],
)
def test_a_database_of_another_product_is_one_line_and_left_alone(
    statements: list[str], run: Run, empty_url: str
) -> None:
    carry_out(empty_url, *statements)
    ran = run("migrate")
    assert (ran.code, ran.out) == (2, "")
    one_error(ran.err)
    engine = migration_engine(database_url(empty_url))
    assert len(sa.inspect(engine).get_table_names()) == 1
    engine.dispose()
    assert run("workspaces").code == 2


@pytest.mark.parametrize("command", ["workspaces", "restarts", "tail", "replay"])
def test_a_database_that_is_behind_is_one_line_where_it_is_read(command: str, run: Run, url: str) -> None:
    carry_out(url, "UPDATE alembic_version SET version_num = '0001'")
    ran = run(command)
    assert (ran.code, ran.out) == (2, "")
    assert "the database is at revision 0001, this version needs 0" in one_error(ran.err)
    assert "run `orchestrator migrate`" in ran.err


@pytest.mark.parametrize("command", ["migrate", "api", "workspaces", "audit"])
def test_a_database_in_another_encoding_is_one_line(
    command: str, run: Run, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"ascii_{command}"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", postgres_server.url(name))
    ran = run(*(["audit", "export"] if command == "audit" else [command]))
    assert (ran.code, ran.out) == (2, "")
    assert "the database's encoding is SQL_ASCII, which cannot keep every path" in one_error(ran.err)
    postgres_server.drop_database(name)


@pytest.mark.parametrize("command", ["migrate", "api", "worker", "beat"])
def test_a_process_whose_database_is_not_named_does_not_start(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_BROKER_URL", "redis://127.0.0.1:1/0")
    ran = run(command)
    assert (ran.code, ran.out) == (2, "")
    assert "ORCHESTRATOR_DATABASE_URL is not set" in one_error(ran.err)


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_separate_processes_on_sqlite_do_not_start(
    command: str, run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", sqlite_url)
    assert "SQLite, which is for one process" in one_error(run(command).err)


def test_an_api_on_sqlite_beside_another_process_does_not_start(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", sqlite_url)
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    with lock_folder(folder, named_by="--data"):
        ran = run("api")
    assert (ran.code, f"uses {folder}, and SQLite is for one" in one_error(ran.err)) == (2, True)
