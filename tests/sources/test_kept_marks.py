"""What an agent has delivered is kept: what it missed, or could not deliver, it reports at its next start."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.domain.events import Operation
from orchestrator.errors import InvalidInput
from orchestrator.sources.folder import WatchedWrite
from orchestrator.sources.kept_marks import KeptMarks, marks_file
from orchestrator.sources.outbox import ALL_CHANGED
from orchestrator.sources.tree import mark_of
from tests.sources.watched import DEADLINE_S, watching
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    (folder / "sub").mkdir(parents=True)
    for name in ("same", "written", "removed", "moved", "sub/held"):
        (folder / name).write_text(name)
    return folder


def test_the_first_start_reports_nothing_the_next_what_happened_meanwhile(tmp_path: Path, folder: Path) -> None:
    kept = tmp_path / "kept.db"
    with watching(folder, kept=kept) as watch:
        assert watch.flushed() == []
    (folder / "written").write_text("more")
    (folder / "removed").unlink()
    (folder / "moved").rename(folder / "sub/moved")
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "new").write_text("x")
    (folder / "a.log").write_text("ignored")
    (folder / "same").chmod(0o600)
    with watching(folder, kept=kept) as watch:
        assert {(write.path, str(write.op)) for write in watch.flushed()} == {
            ("written", "modified"),
            ("removed", "deleted"),
            ("moved", "deleted"),
            ("sub/moved", "renamed"),
            (".gitignore", "created"),
            ("new", "created"),
        }
    with watching(folder, kept=kept) as watch:
        assert watch.flushed() == [], "each is told once"


def test_what_was_not_delivered_is_found_again(tmp_path: Path, folder: Path) -> None:
    kept = tmp_path / "kept.db"
    refused: list[str] = []

    def away_for_some(writes: Sequence[WatchedWrite]) -> None:
        if any(write.path == "sub/held" for write in writes):
            refused.append("sub/held")
            raise ConnectionError("the server is away")

    with watching(folder, kept=kept, sink=away_for_some) as watch:
        (folder / "written").write_text("delivered")
        wait_until(lambda: "written" in watch.paths(), timeout_s=DEADLINE_S, what="what is delivered")
        (folder / "sub/held").write_text("not delivered")
        wait_until(lambda: bool(refused), timeout_s=DEADLINE_S, what="the refusal")
    assert watch.undelivered == 1
    with watching(folder, kept=kept) as watch:
        assert [(write.path, str(write.op)) for write in watch.flushed()] == [("sub/held", "modified")]
    assert watch.undelivered == 0


def test_one_that_is_killed_has_kept_what_it_delivered(tmp_path: Path, folder: Path) -> None:
    """Nothing is written at its end that a start needs: here the end never comes."""
    with KeptMarks(tmp_path / "kept.db") as kept:
        found = mark_of(str(folder / "same"))
        assert found is not None
        assert found != "directory"
        kept.replace({"same": found, "gone": found})
        kept.delivered([WatchedWrite("gone", Operation.DELETED), WatchedWrite("new", Operation.CREATED, found)], {})
        loaded = kept.load()
        assert loaded is not None
        assert loaded.keys() == {"same", "new"}
        assert loaded["new"].same_content(found)
        kept.delivered([WatchedWrite(ALL_CHANGED, Operation.MODIFIED)], {"only": found})
        assert (kept.load() or {}).keys() == {"only"}


def test_marks_that_cannot_be_kept_are_said_and_end_nothing(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A full disk: what was taken is reported again by the next start, which is better than an agent that ends."""
    file, deleted = tmp_path / "kept.db", [WatchedWrite("same", Operation.DELETED)]
    with watching(folder, kept=file) as watch:
        watch.flushed()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TRIGGER full BEFORE DELETE ON marks BEGIN SELECT RAISE(FAIL, 'the disk is full'); END")
    database.close()
    with KeptMarks(file) as kept:
        kept.delivered(deleted, {})
        kept.delivered(deleted, {})
        assert "same" in (kept.load() or {})
    assert capfd.readouterr().out.count("the disk is full") == 1


def test_two_agents_of_one_folder_are_refused(tmp_path: Path) -> None:
    file = marks_file(tmp_path, "http://x", "ws", "/srv")
    with KeptMarks(file), pytest.raises(InvalidInput, match="another agent"):
        KeptMarks(file)
    with KeptMarks(file):
        assert file.stat().st_mode & 0o077 == 0
    assert marks_file(tmp_path, "http://x", "ws", "/srv/b") != file


def test_names_that_are_not_utf8_are_kept(tmp_path: Path, folder: Path) -> None:
    kept, name = tmp_path / "kept.db", "caf\udce9"
    (folder / name).write_text("x")
    with watching(folder, kept=kept) as watch:
        watch.flushed()
    (folder / name).write_text("more")
    with watching(folder, kept=kept) as watch:
        assert {write.path for write in watch.flushed()} == {name}
