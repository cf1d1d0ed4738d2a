"""The log straight from a database: the same lines and the same report as from its export."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.audit.verify import database as database_module
from orchestrator.audit.verify.database import Database, SourceUnavailable
from orchestrator.audit.verify.report import Promise, Report
from orchestrator.audit.verify.run import Verification
from orchestrator.storage.opening import open_store
from tests.audit.verify.logs import TICK_US, broken, export_of, verify
from tests.history import History, TestClock


@pytest.fixture
def url(good_database: Path, tmp_path: Path) -> str:
    """A copy of the good log in SQLite, for this test to change."""
    copy = tmp_path / "copy.db"
    shutil.copy(good_database, copy)
    return f"sqlite:///{copy}"


def verify_database(url: str) -> Report:
    database = Database(url)
    verification = Verification(tick_us=TICK_US)
    verification.read(database.lines(0, database.last_position()))
    verification.finish()
    database.close()
    return verification.report(database.name)


def change(url: str, statement: str) -> None:
    """With the file in hand no trigger is in the way."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement)
        connection.commit()


def test_lines_are_those_of_the_export_and_pages_join(
    url: str, good_lines: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_PAGE", 7)
    database = Database(url)
    lines = [line for line, _ in database.lines(0, database.last_position())]
    database.close()

    assert b"\n".join(lines) + b"\n" == good_lines


def test_a_good_database_is_good(url: str, good_lines: bytes) -> None:
    report = verify_database(url)
    from_file = verify(good_lines)

    assert report.violations == ()
    assert report.sums == from_file.sums


def test_postgresql_gives_the_same_lines(postgres_url: str, reader_url: str) -> None:
    store = open_store(postgres_url)
    clock = TestClock()
    history = History(store, clock)
    history.register("ws", quiet="0s", max_wait="1s", min_interval="0s")
    history.write("dépôt/a", "b")
    history.queued()
    history.start()
    history.succeed()
    database = Database(reader_url.replace("postgresql+psycopg://", "postgresql://"))
    lines = [line for line, _ in database.lines(0, database.last_position())]
    report = verify_database(reader_url)
    database.close()

    assert b"\n".join(lines) + b"\n" == export_of(store)
    assert report.violations == ()
    assert report.sums.covered == 2
    store.close()


@pytest.mark.parametrize(
    ("statement", "promise", "positions"),
    [
        ("DELETE FROM events WHERE position = 4", Promise.S2, (6,)),
        (
            "UPDATE events SET data = replace(data, '\"fence\":2', '\"fence\":9') WHERE position = 12",
            Promise.S3,
            (11, 12),
        ),
        ("UPDATE events SET data = '{\"path\":' WHERE position = 9", Promise.LOG, (8,)),
        ("UPDATE events SET recorded_at = 'yesterday' WHERE position = 9", Promise.LOG, (9,)),
        ("UPDATE events SET data = x'00ff' WHERE position = 9", Promise.LOG, (9,)),
        ("UPDATE events SET type = x'00' WHERE position = 9", Promise.LOG, (9,)),
    ],
)
def test_a_database_that_was_changed_by_hand(
    url: str, statement: str, promise: Promise, positions: tuple[int, ...]
) -> None:
    change(url, statement)

    assert broken(verify_database(url)) == {promise: [positions]}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{tmp}/nowhere.db", "there is no database"),
        ("sqlite:///{tmp}/other.db", "no such table: events"),
        ("sqlite:///{tmp}/text.db", "not a database"),
        ("mysql://x/y", "mysql: only sqlite:/// and postgresql://"),
        ("sqlite://", "there is no database"),
        ("postgresql://127.0.0.1:1/x", "cannot be read: connection failed"),
        ("nonsense", "is no database URL"),
    ],
)
def test_what_is_no_database_is_told(tmp_path: Path, url: str, said: str) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE other (x)")
    (tmp_path / "text.db").write_text("this is no database " * 100)

    with pytest.raises(SourceUnavailable, match=said):
        verify_database(url.format(tmp=tmp_path))
