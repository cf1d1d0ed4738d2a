"""A watched folder: real files, real save sequences of editors, a sink that fails."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.domain.events import Operation
from orchestrator.errors import InvalidInput
from orchestrator.sources.folder import Outbox, WatchedWrite, watch_folder, workspace_name
from tests.sources.watched import DEADLINE_S, watching
from tests.waiting import wait_until


def only(path: str, op: str) -> list[tuple[str, str]]:
    return [(path, op)]


def pairs(writes: Sequence[WatchedWrite]) -> list[tuple[str, str]]:
    return [(write.path, write.op) for write in writes]


def test_seventeen_files_in_a_burst_are_exactly_those_seventeen(tmp_path: Path) -> None:
    expected = {f"src/file-{number}.py" for number in range(17)}
    (tmp_path / "src").mkdir()
    with watching(tmp_path) as watch:
        for path in expected:
            (tmp_path / path).write_text("x = 1")
        wait_until(lambda: watch.paths() == expected, timeout_s=DEADLINE_S, what=f"17 files, not {watch.writes}")
        assert {write.path for write in watch.flushed()} == expected


def test_created_modified_deleted_and_renamed_are_told_apart(tmp_path: Path) -> None:
    for name in ("old.py", "gone.py", "before.py"):
        (tmp_path / name).write_text("1")
    with watching(tmp_path) as watch:
        (tmp_path / "new.py").write_text("1")
        (tmp_path / "old.py").write_text("2")
        (tmp_path / "gone.py").unlink()
        (tmp_path / "before.py").rename(tmp_path / "after.py")
        watch.flushed()
        assert next(write.op for write in watch.writes if write.path == "new.py") == "created"
        assert watch.last_op("old.py") == "modified"
        assert watch.last_op("gone.py") == "deleted"
        assert watch.last_op("before.py") == "deleted"
        assert watch.last_op("after.py") == "renamed"


def save_as_vim(file: Path) -> None:
    probe = file.parent / "4913"
    swap = file.parent / f".{file.name}.swp"
    backup = file.parent / f"{file.name}~"
    swap.write_text("swap")
    probe.write_text("")
    probe.unlink()
    file.rename(backup)
    file.write_text("new text")
    backup.unlink()
    swap.unlink()


def save_by_rename(file: Path) -> None:
    temporary = file.parent / ".goutputstream-AB12CD"
    temporary.write_text("new text")
    temporary.replace(file)


def save_as_jetbrains(file: Path) -> None:
    temporary = file.parent / f"{file.name}___jb_tmp___"
    old = file.parent / f"{file.name}___jb_old___"
    temporary.write_text("new text")
    file.rename(old)
    temporary.rename(file)
    old.unlink()


@pytest.mark.parametrize("save", [save_as_vim, save_by_rename, save_as_jetbrains])
def test_an_editors_save_is_one_modified(tmp_path: Path, save: Callable[[Path], None]) -> None:
    (tmp_path / "main.py").write_text("old text")
    with watching(tmp_path) as watch:
        save(tmp_path / "main.py")
        wait_until(lambda: "main.py" in watch.paths(), timeout_s=DEADLINE_S, what="the save")
        assert pairs(watch.flushed()) == only("main.py", Operation.MODIFIED)


def test_folders_and_temporary_files_that_are_nobodys_work_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    with watching(tmp_path) as watch:
        for folder in ("node_modules/left-pad", ".git/objects", "src/.venv/lib", "src/__pycache__"):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "file.js").write_text("x")
        for name in (".a.py.swp", "4913", "a.py~", ".#a.py", "#a.py#", "a.py.kate-swp", ".~lock.a.odt#", "a.tmp"):
            (tmp_path / name).write_text("x")
        (tmp_path / "empty-folder").mkdir()
        (tmp_path / "src/a.py").write_text("x")
        wait_until(lambda: "src/a.py" in watch.paths(), timeout_s=DEADLINE_S, what="src/a.py")
        assert {write.path for write in watch.flushed()} == {"src/a.py"}


def test_gitignore_files_hold_in_their_folder_and_below(tmp_path: Path) -> None:
    (tmp_path / "app/logs").mkdir(parents=True)
    (tmp_path / ".gitignore").write_text("*.log\n/build/\n!keep.log\n[z-a]\n[[:digit:]]*.tab\n")
    (tmp_path / "app/.gitignore").write_text("secret*\n!special.log\n")
    with watching(tmp_path) as watch:
        for ignored in ("a.log", "app/b.log", "app/logs/secret.txt", "build/out.js", "7a.tab"):
            (tmp_path / ignored).parent.mkdir(exist_ok=True)
            (tmp_path / ignored).write_text("x")
        seen = {"keep.log", "app/special.log", "secret.txt", "app/build.txt", "da.tab"}
        for path in seen:
            (tmp_path / path).write_text("x")
        wait_until(lambda: seen <= watch.paths(), timeout_s=DEADLINE_S, what=f"{seen}, not {watch.writes}")
        assert {write.path for write in watch.flushed()} == seen


def test_an_edited_gitignore_holds_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old.txt").write_text("x")
    (tmp_path / "data.csv").write_text("x")
    (tmp_path / ".gitignore").write_text("out/\n")
    with watching(tmp_path) as watch:
        (tmp_path / ".gitignore").write_text("*.csv\n")
        wait_until(lambda: ".gitignore" in watch.paths(), timeout_s=DEADLINE_S, what="the rules file itself")
        assert {write.path for write in watch.flushed()} == {".gitignore"}, "a rule's change is no write of other files"
        (tmp_path / "data.csv").write_text("ignored now")
        (tmp_path / "out/old.txt").write_text("watched now")
        wait_until(
            lambda: "out/old.txt" in watch.paths(), timeout_s=DEADLINE_S, what="the file that the rule hid before"
        )
        assert watch.last_op("out/old.txt") == "modified"
        assert {write.path for write in watch.flushed()} == {".gitignore", "out/old.txt"}


def test_files_of_new_moved_and_removed_folders_are_all_seen(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = tmp_path / "watched"
    (outside / "moved/in").mkdir(parents=True)
    (outside / "moved/in/file").write_text("x")
    folder.mkdir()
    with watching(folder) as watch:
        (folder / "a/b/c").mkdir(parents=True)
        (folder / "a/b/c/deep").write_text("x")
        wait_until(
            lambda: "a/b/c/deep" in watch.paths(), timeout_s=DEADLINE_S, what="a file written at once into a new folder"
        )
        (outside / "moved").rename(folder / "moved")
        wait_until(
            lambda: "moved/in/file" in watch.paths(), timeout_s=DEADLINE_S, what="a file that came with its folder"
        )
        (folder / "moved/in/file").write_text("more")
        wait_until(
            lambda: watch.last_op("moved/in/file") == "modified",
            timeout_s=DEADLINE_S,
            what="a write in the moved folder",
        )
        shutil.rmtree(folder / "a")
        (folder / "moved").rename(outside / "moved")
        gone = {"a/b/c/deep", "moved/in/file"}
        wait_until(
            lambda: all(watch.last_op(path) == "deleted" for path in gone), timeout_s=DEADLINE_S, what="both deletions"
        )
        (outside / "moved/in/file").write_text("not ours any more")
        assert watch.last_op("moved/in/file") == "deleted"
        assert {write.path for write in watch.flushed()} == gone


def test_names_that_are_not_utf8_are_exact_and_do_not_end_the_watch(tmp_path: Path) -> None:
    with watching(tmp_path) as watch:
        for _ in range(2):
            (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
            wait_until(lambda: "caf\udce9.txt" in watch.paths(), timeout_s=DEADLINE_S, what="the Latin-1 name")
            watch.flushed()
            watch.writes.clear()
        inner = tmp_path / os.fsdecode(b"d\xe9p\xf4t")
        inner.mkdir()
        (inner / "a.py").write_text("x")
        wait_until(
            lambda: "d\udce9p\udcf4t/a.py" in watch.paths(),
            timeout_s=DEADLINE_S,
            what="a file in a folder of such a name",
        )
        (inner / "a.py").write_text("longer")
        wait_until(
            lambda: watch.last_op("d\udce9p\udcf4t/a.py") == "modified", timeout_s=DEADLINE_S, what="a write in it"
        )


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "watched"
    outside.mkdir()
    folder.mkdir()
    (folder / "before").symlink_to(outside)
    with watching(folder) as watch:
        (folder / "after").symlink_to(outside)
        wait_until(lambda: "after" in watch.paths(), timeout_s=DEADLINE_S, what="the link itself")
        (outside / "file").write_text("x")
        assert pairs(watch.flushed()) == only("after", Operation.CREATED)


def test_the_data_folder_inside_is_ignored(tmp_path: Path) -> None:
    data = tmp_path / "state/data"
    with watching(tmp_path, ignore=[data]) as watch:
        data.mkdir(parents=True)
        (data / "orchestrator.db").write_text("x")
        (tmp_path / "state/other").write_text("x")
        wait_until(lambda: "state/other" in watch.paths(), timeout_s=DEADLINE_S, what="a file beside the data folder")
        assert {write.path for write in watch.flushed()} == {"state/other"}


def test_a_watched_folder_may_go_away_and_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.py").write_text("x")
    with watching(folder) as watch:
        shutil.rmtree(folder)
        wait_until(lambda: watch.last_op("a.py") == "deleted", timeout_s=DEADLINE_S, what="the deletion")
        folder.mkdir()
        (folder / "b.py").write_text("x")
        wait_until(lambda: "b.py" in watch.paths(), timeout_s=DEADLINE_S, what="a write in the new folder")
        watch.flushed()


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    ready = threading.Event()
    with pytest.raises(InvalidInput, match=name):
        watch_folder(tmp_path / name, lambda writes: None, stop=threading.Event(), ready=ready)
    assert not ready.is_set()


def test_watching_the_data_folder_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="data folder"):
        watch_folder(
            tmp_path, lambda writes: None, stop=threading.Event(), ready=threading.Event(), ignore=[tmp_path / "."]
        )


def test_a_sink_that_fails_twice_gets_everything(tmp_path: Path) -> None:
    failures: list[int] = []

    def away_at_first(writes: Sequence[WatchedWrite]) -> None:
        if len(failures) < 2:
            failures.append(len(writes))
            (tmp_path / f"while-away-{len(failures)}").write_text("x")
            raise ConnectionError("the server is away")

    with watching(tmp_path, sink=away_at_first) as watch:
        (tmp_path / "first").write_text("x")
        expected = {"first", "while-away-1", "while-away-2"}
        wait_until(lambda: watch.paths() == expected, timeout_s=DEADLINE_S, what=f"{expected}, not {watch.writes}")
        assert len(failures) == 2
        assert watch.writes[0].path == "first"


def test_a_large_outage_keeps_the_last_write_of_every_path() -> None:
    away = True
    delivered: list[WatchedWrite] = []

    def sink(writes: Sequence[WatchedWrite]) -> None:
        if away:
            raise ConnectionError("the server is away")
        delivered.extend(writes)

    outbox = Outbox(sink)
    ops = (Operation.CREATED, Operation.MODIFIED, Operation.DELETED)
    for op in ops:
        outbox.add([WatchedWrite(f"f{number}", op) for number in range(4_000)])
        outbox.send()
    away = False
    wait_until(lambda: outbox.retry_in_s() == 0, timeout_s=DEADLINE_S, what="the end of the back-off")
    outbox.send()
    assert outbox.waiting == []
    assert delivered == [WatchedWrite(f"f{number}", Operation.DELETED) for number in range(4_000)]


def test_an_outage_with_endless_paths_becomes_one_write_of_the_folder() -> None:
    delivered: list[WatchedWrite] = []
    outbox = Outbox(delivered.extend)
    outbox.add([WatchedWrite(f"f{number}", Operation.CREATED) for number in range(100_001)])
    outbox.send()
    assert delivered == [WatchedWrite(".", Operation.MODIFIED)]


def test_many_writes_reach_a_sink_that_is_there_one_by_one() -> None:
    batches: list[int] = []
    outbox = Outbox(lambda writes: batches.append(len(writes)))
    outbox.add([WatchedWrite("same", Operation.MODIFIED)] * 2_500)
    outbox.send()
    assert batches == [1_000, 1_000, 500]


def test_stop_ends_the_watch_at_once_even_while_the_sink_is_away(tmp_path: Path) -> None:
    def away(writes: Sequence[WatchedWrite]) -> None:
        failed.set()
        raise ConnectionError("the server is away")

    failed = threading.Event()
    with watching(tmp_path, sink=away) as watch:
        (tmp_path / "a").write_text("x")
        assert failed.wait(DEADLINE_S)
        started_s = time.monotonic()
        watch.stop.set()
        watch.thread.join(DEADLINE_S)
        assert time.monotonic() - started_s < 0.5


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/srv/my app", "my-app"),
        ("/srv/a.b_c:d-e", "a.b_c:d-e"),
        ("/srv/café", "caf-"),
        ("/", "_"),
        ("/x/..", "_"),
        ("/srv/-x", "_x"),
    ],
)
def test_a_workspace_is_named_after_its_folder(folder: str, expected: str) -> None:
    assert workspace_name(Path(folder), lambda name: False) == expected


def test_a_taken_name_gets_six_digits_of_its_path() -> None:
    digits = hashlib.sha256(b"/srv/app").hexdigest()[:6]
    assert workspace_name(Path("/srv/app"), {"app"}.__contains__) == f"app-{digits}"


def test_a_long_name_keeps_within_128_characters() -> None:
    folder = Path("/srv") / ("x" * 200)
    assert workspace_name(folder, lambda name: False) == "x" * 128
    assert len(workspace_name(folder, lambda name: len(name) == 128 and "-" not in name)) == 128
