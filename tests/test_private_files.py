"""What the product makes is closed to others, and what is somebody else's is left as it is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli.key_at_hand import note_where
from orchestrator.errors import InvalidInput
from orchestrator.private_files import lock_folder, open_private, private_folder
from orchestrator.replace_file import replace_file
from orchestrator.settings import default_data_folder
from orchestrator.sources.kept_marks import KeptMarks, marks_file
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The widest there is: what is closed is closed by us."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("before", [None, 0o755, 0o750, 0o775])
def test_a_folder_of_ours_is_made_or_closed(tmp_path: Path, before: int | None) -> None:
    folder = tmp_path / "data"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    private_folder(folder, named_by="--data")
    assert mode(folder) == 0o700


@pytest.mark.parametrize("before", [0o1777, 0o777, 0o1755])
def test_a_folder_that_all_share_is_refused_and_not_changed(tmp_path: Path, before: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(before)
    with pytest.raises(InvalidInput, match="--data: everybody may write to"):
        private_folder(folder, named_by="--data")
    assert mode(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused_and_not_changed(tmp_path: Path) -> None:
    foreign, link = tmp_path / "foreign", tmp_path / "link"
    foreign.mkdir(mode=0o755)
    link.symlink_to(tmp_path)
    os.chown(foreign, 65534, 65534)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    for folder in (foreign, link):
        with pytest.raises(InvalidInput, match="belongs to another user"):
            private_folder(folder, named_by="--data")
    assert (mode(foreign), foreign.stat().st_uid) == (0o755, 65534)


def test_a_database_and_what_lies_beside_it_are_closed_before_and_after_an_upgrade(tmp_path: Path) -> None:
    """The locks of an open one live on: closing a file of one's own would give them up."""
    path = tmp_path / "o.db"
    upgrade(f"sqlite:///{path}")
    assert mode(path) == 0o600
    path.chmod(0o644)
    with sqlite3.connect(path) as held:
        held.execute("CREATE TABLE beside (x)")
        beside = [path, *tmp_path.glob("o.db-*")]
        for file in beside:
            file.chmod(0o644)
        held.execute("BEGIN IMMEDIATE")
        store = open_store(f"sqlite:///{path}")
        store.check()
        assert [mode(file) for file in beside] == [0o600] * len(beside)
        with sqlite3.connect(path, timeout=0) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        store.close()
        other.close()
    held.close()
    assert len(beside) > 1


def test_files_are_closed_also_where_one_was_open_before(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / "old").write_text("x" * 100)
        with open_private(tmp_path / name) as file:
            file.write("text")
        assert (mode(tmp_path / name), (tmp_path / name).read_text()) == (0o600, "text")
    replace_file(tmp_path / "evidence", b"{}")
    assert mode(tmp_path / "evidence") == 0o600
    with open_private(Path(os.devnull)) as nothing:
        nothing.write("text")
    assert mode(Path(os.devnull)) & 0o666 == 0o666


def test_one_process_at_a_time_has_a_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path, named_by="--data"):
        assert mode(tmp_path / "lock") == 0o600
        with pytest.raises(InvalidInput, match=rf"pid {os.getpid()}\) uses {tmp_path}"):
            lock_folder(tmp_path, named_by="--data")
    lock_folder(tmp_path, named_by="--data").close()


def test_the_data_folder_is_closed_whoever_makes_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeptMarks(marks_file(tmp_path / "agent", "http://127.0.0.1:1", "ws", "/srv")):
        assert [mode(tmp_path / "agent"), mode(tmp_path / "agent" / "watch")] == [0o700, 0o700]

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    named = tmp_path / "named"
    named.mkdir()
    note_where(named, "http://127.0.0.1:8321")
    assert default_data_folder().is_relative_to(tmp_path)
    assert mode(default_data_folder()) == 0o700


NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")


@AS_ROOT
def test_a_file_or_link_that_somebody_else_has_put_there_is_not_written_to(tmp_path: Path) -> None:
    """They would read what is written, or it would be written where they want."""
    mine, theirs, link = tmp_path / "mine", tmp_path / "theirs", tmp_path / "link"
    mine.write_text("as it was")
    theirs.write_text("as it was")
    link.symlink_to(mine)
    os.chown(theirs, NOBODY, NOBODY)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    for path in (theirs, link):
        with pytest.raises(PermissionError, match="belongs to another user"):
            open_private(path)
    assert [path.read_text() for path in (mine, theirs)] == ["as it was"] * 2
    own = tmp_path / "own"
    own.symlink_to(mine)
    with open_private(own) as file:
        file.write("new")
    assert mine.read_text() == "new"


@AS_ROOT
def test_what_is_to_become_a_file_is_in_nobody_elses_hands(tmp_path: Path) -> None:
    """Its name while it is written can be foretold: whoever has made such a file keeps it, or has it open."""
    planted = tmp_path / f".key.{os.getpid()}.tmp"
    planted.touch()
    os.chown(planted, NOBODY, NOBODY)
    planted.chmod(0o666)
    with planted.open("rb") as kept:
        replace_file(tmp_path / "key", b"secret")
        assert kept.read() == b""
    found = (tmp_path / "key").stat()
    assert (found.st_uid, found.st_mode & 0o777, (tmp_path / "key").read_bytes()) == (0, 0o600, b"secret")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("as it was")
    planted.symlink_to(elsewhere)
    replace_file(tmp_path / "key", b"again")
    assert (elsewhere.read_text(), (tmp_path / "key").read_bytes()) == ("as it was", b"again")
