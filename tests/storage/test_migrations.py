"""The migrations: up, down and up again, the same as the schema in code, from anywhere, two at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from orchestrator.errors import InvalidInput, MigrationsPending, StorageUnavailable
from orchestrator.ports.store import EventFilter
from orchestrator.storage import migrate
from orchestrator.storage.opening import open_store
from orchestrator.storage.revisions import known_revisions
from orchestrator.storage.sql.schema import metadata
from orchestrator.storage.urls import database_url
from tests.servers.postgres import PostgresServer
from tests.storage.samples import file_written, log

PROJECT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'with %41 and space.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


def what_is_there(url: str) -> set[str]:
    """Return the names of all tables, triggers and functions that are not the database's own."""
    engine = sa.create_engine(database_url(url))
    if engine.dialect.name == "sqlite":
        names = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    else:
        names = (
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
    with engine.connect() as connection:
        found = set(connection.execute(sa.text(names)).scalars())
    engine.dispose()
    return found


def test_up_down_and_up_again(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    first = what_is_there(empty_url)
    assert set(metadata.tables) < first
    migrate.check_schema(empty_url)
    assert not migrate.is_pending(empty_url)
    migrate.downgrade(empty_url)
    assert {name.removesuffix("_pkc") for name in what_is_there(empty_url)} == {"alembic_version"}
    assert migrate.is_pending(empty_url)
    migrate.upgrade(empty_url)
    migrate.upgrade(empty_url)
    assert what_is_there(empty_url) == first
    store = open_store(empty_url)
    store.check()
    assert [event.position for event in log(store, file_written())] == [1]
    store.close()


def test_two_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate.upgrade, [empty_url] * 4))
    assert not migrate.is_pending(empty_url)


def test_a_database_that_is_behind_or_ahead_says_so(empty_url: str) -> None:
    store = open_store(empty_url)
    with pytest.raises(MigrationsPending, match="orchestrator migrate"):
        store.check()
    with pytest.raises(MigrationsPending, match="orchestrator migrate"):
        log(store, file_written())
    with pytest.raises(MigrationsPending), store.read() as reader:
        reader.events(EventFilter())
    with pytest.raises(MigrationsPending):
        store.ticked()
    migrate.upgrade(empty_url)
    store.check()
    set_revision(empty_url, "9999")
    with pytest.raises(MigrationsPending, match="9999"):
        store.check()
    store.close()


def set_revision(url: str, revision: str) -> None:
    engine = sa.create_engine(database_url(url))
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    engine.dispose()


def test_a_database_one_revision_ahead_is_served_while_an_upgrade_rolls(empty_url: str) -> None:
    """Or every API of the version before would say that it is not ready, at the moment of the migration."""
    migrate.upgrade(empty_url)
    revisions = sorted(path.name.split("_")[3] for path in (PROJECT / "migrations" / "versions").glob("*.py"))
    set_revision(empty_url, f"{int(revisions[-1]) + 1:04}")
    store = open_store(empty_url)
    store.check()
    set_revision(empty_url, f"{int(revisions[-1]) + 2:04}")
    with pytest.raises(MigrationsPending, match="upgrade"):
        store.check()
    store.close()


def test_it_runs_from_any_folder(tmp_path: Path) -> None:
    words = "import sys; from orchestrator.storage.migrate import upgrade; upgrade(sys.argv[1])"
    url = f"sqlite:///{tmp_path}/a.db"
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", words, url],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert not migrate.is_pending(url)


def test_alembic_itself_finds_the_migrations_in_the_project(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    alembic = [sys.executable, "-m", "alembic", "-x", f"url={url}"]
    for words in (["upgrade", "head"], ["check"]):
        ran = subprocess.run([*alembic, *words], cwd=PROJECT, capture_output=True, check=False, text=True)
        assert ran.returncode == 0, ran.stderr


def test_the_revisions_that_are_read_from_file_names_are_those_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "migrations"))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert list(known_revisions()) == sorted(script.revision for script in scripts)


def test_a_process_on_a_database_of_this_version_does_not_import_alembic(sqlite_url: str) -> None:
    words = (
        "import sys; from orchestrator.storage import migrate, opening; migrate.upgrade(sys.argv[1]);"
        "opening.open_store(sys.argv[1]).check(); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", words, sqlite_url], check=True)


def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        migrate.upgrade(f"sqlite:///{tmp_path}/no/such/folder/a.db")
    with pytest.raises(StorageUnavailable):
        migrate.is_pending("postgresql://127.0.0.1:1/nothing")


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_name_no_database_of_ours(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_store(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_ways_to_write_postgresql(scheme: str) -> None:
    assert str(database_url(f"{scheme}://u:p@host/name")).startswith("postgresql+psycopg://u:")
