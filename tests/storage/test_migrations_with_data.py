"""The newest migration on a database that is in use: no stored event changes, and the version before it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.audit.verify.lines import read_lines
from orchestrator.audit.verify.run import Verification
from orchestrator.history.export import export
from orchestrator.history.file_counting import count_files
from orchestrator.history.replay import replay
from orchestrator.history.sum_keeping import keep_sums
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import EventStore
from orchestrator.storage import migrate
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import database_url
from tests.audit.sealing import Kept, check_chain, sealer
from tests.previous_version import NoHistory, check_out_previous, newest_migration
from tests.servers.postgres import PostgresServer
from tests.storage.life_script import live

LIFE = Path(__file__).with_name("life_script.py")
BEFORE = "0003"
"""The revision before the newest."""


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'lived.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    """The code before the newest migration, or why it is not here."""
    try:
        return check_out_previous(tmp_path_factory.mktemp("older"))
    except NoHistory as reason:
        return f"the version before {newest_migration().name} on its schema: {reason}"


def live_with(code: Path, url: str, workspace: str, *more: str) -> None:
    """Have another version of the product live a short life of a workspace in the database."""
    ran = subprocess.run(
        [sys.executable, str(LIFE), url, workspace, *more],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"


def rows_of(url: str, table: str) -> list[tuple[object, ...]]:
    """Every row as the database keeps it, in a fixed order."""
    engine = sa.create_engine(database_url(url))
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY 1"))]
    engine.dispose()
    return rows


def events_hash(url: str) -> str:
    """One hash over all columns of all events: position, instants and text as they are stored."""
    return sha256(repr(rows_of(url, "events")).encode()).hexdigest()


def columns_of(url: str) -> Mapping[str, dict[str, tuple[str, bool]]]:
    """Each table's columns: type, and whether a row may come without a value."""
    engine = sa.create_engine(database_url(url))
    look = sa.inspect(engine)
    found = {
        table: {
            column["name"]: (str(column["type"]), bool(column["nullable"]) or column["default"] is not None)
            for column in look.get_columns(table)
        }
        for table in look.get_table_names()
    }
    engine.dispose()
    return found


@contextmanager
def opened(url: str) -> Iterator[EventStore]:
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def check_everything(url: str, tmp_path: Path) -> None:
    """Replay gives the rows, the verifier finds every promise kept, the tree can be sealed and file counts made."""
    file = tmp_path / "export.ndjson"
    with opened(url) as store, file.open("w", encoding="utf-8", newline="\n") as lines:
        assert replay(store).differences == ()
        export(store, lines.write)
        sealer(store, Kept()).run()
        check_chain(store)
        count_files(store)
        check_sums(store)
    verification = Verification()
    with file.open("rb") as exported:
        verification.read(read_lines(exported))
    assert verification.report("export").good


def check_sums(store: EventStore) -> None:
    """Sums that are made after it say what the rows say."""
    keep_sums(store)
    with store.read() as reader:
        assert reader.sums_position() == reader.last_position()
        kept = {(one.state, one.cause): one for one in reader.kept_restart_sums(Scope(), after=reader.last_position())}
        assert kept == {(one.state, one.cause): one for one in reader.restart_sums(Scope(), most=100_000)}
        assert kept


def counts_of(url: str) -> dict[str, int]:
    """How often each file was written, as the follower has counted."""
    with opened(url) as store:
        count_files(store)
        with store.read() as reader:
            return {hot.path: hot.writes for hot in reader.kept_files(Scope(), limit=100)}


def test_up_down_and_up_again_with_data_changes_no_stored_event(empty_url: str, tmp_path: Path) -> None:
    migrate.upgrade(empty_url)
    live(empty_url, "ws-1")
    check_everything(empty_url, tmp_path)
    before, counts, restarts = events_hash(empty_url), counts_of(empty_url), rows_of(empty_url, "restarts")

    migrate.downgrade(empty_url, BEFORE)
    assert events_hash(empty_url) == before
    migrate.upgrade(empty_url)

    assert events_hash(empty_url) == before
    assert rows_of(empty_url, "restarts") == restarts
    check_everything(empty_url, tmp_path)
    assert counts_of(empty_url) == counts, "the counts of files went on from where tables that are gone had ended"


def test_the_newest_migration_takes_nothing_away_from_the_version_before(empty_url: str) -> None:
    """Expand, then contract: old code finds every column, and may leave out every new one. Needs no old code."""
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, BEFORE)
    old = columns_of(empty_url)
    migrate.upgrade(empty_url)
    new = columns_of(empty_url)

    for table, columns in old.items():
        assert columns.items() <= new[table].items(), f"{table}: {columns} became {new[table]}"
        added = new[table].keys() - columns.keys()
        assert all(new[table][name][1] for name in added), f"{table}: old code cannot fill {added}"


def test_a_rolling_upgrade_of_a_database_that_is_in_use(
    empty_url: str, older: Path | str, tmp_path: Path, not_run: Callable[[str], None]
) -> None:
    """The version before lives, the newest migration comes, both versions live on, one after the other."""
    if isinstance(older, str):
        not_run(older)
        return
    live_with(older, empty_url, "ws-old", "migrate")
    before = events_hash(empty_url)

    migrate.upgrade(empty_url)

    assert events_hash(empty_url) == before
    check_everything(empty_url, tmp_path)
    live(empty_url, "ws-new")
    live(empty_url, "ws-old")
    live_with(older, empty_url, "ws-new")
    live(empty_url, "ws-new")
    check_everything(empty_url, tmp_path)
