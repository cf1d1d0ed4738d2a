"""Only a change of content is a write, and every one is: attributes, links, lost notices, no notices at all."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.sources.folder import FolderWatcher, watch_folder
from orchestrator.sources.git_rules import RULES_FILE
from orchestrator.sources.ignores import Ignores
from orchestrator.sources.links import as_named
from orchestrator.sources.tree import look
from tests.sources.random_changes import RandomChanges
from tests.sources.watched import DEADLINE_S, watching
from tests.waiting import wait_until


def test_attributes_and_links_of_a_file_are_no_writes(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    with watching(folder) as watch:
        os.link(folder / "a", tmp_path / "backup")
        (tmp_path / "backup").unlink()
        (folder / "b").chmod(0o600)
        os.chown(folder / "b", os.getuid(), os.getgid())
        os.setxattr(folder / "c", "user.note", b"1")
        (folder / "c").rename(folder / "moved")
        (folder / "moved").rename(folder / "c")
        assert watch.flushed() == []


def test_what_a_look_finds_with_other_attributes_only_is_no_write(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    with FolderWatcher(tmp_path) as watcher:
        (tmp_path / "a").chmod(0o600)
        (tmp_path / RULES_FILE).write_text("")  # has the whole folder looked at
        assert [write.path for write in watcher.take(threading.Event())] == [RULES_FILE]


def test_other_content_of_the_same_size_and_times_is_a_write(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    before = file.stat()
    with watching(tmp_path) as watch:
        file.write_text("new")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        wait_until(lambda: "a" in watch.paths(), timeout_s=DEADLINE_S, what="the write")


def test_a_write_by_another_name_of_the_same_file_is_one_of_both(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    os.link(tmp_path / "a", tmp_path / "b")
    with watching(tmp_path) as watch:
        (tmp_path / "b").write_text("22")
        assert {(write.path, write.op) for write in watch.flushed()} == {("a", "modified"), ("b", "modified")}


def test_touch_is_a_write(tmp_path: Path) -> None:
    (tmp_path / "trigger").write_text("")
    with watching(tmp_path) as watch:
        (tmp_path / "trigger").touch()
        assert {write.path for write in watch.flushed()} == {"trigger"}


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_missed_in_random_operations(tmp_path: Path, seed: int) -> None:
    changes = RandomChanges(random.Random(seed), tmp_path)
    for _ in range(12):
        changes.run(20)
    assert changes.missed == []
    assert changes.differences == []
    changes.close()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_a_rules_file_that_is_none_costs_no_descriptor(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / RULES_FILE)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        look(str(tmp_path), Ignores(frozenset()))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("where", ["missing", "data"])
def test_a_watch_that_is_refused_leaves_no_descriptor(tmp_path: Path, where: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(Exception, match=where if where == "missing" else "data folder"):
            watch_folder(
                tmp_path / where if where == "missing" else tmp_path,
                print,
                stop=threading.Event(),
                ready=threading.Event(),
                ignore=[tmp_path],
            )
    assert len(os.listdir("/proc/self/fd")) == before


LIMITED = """
import json, sys, threading
from pathlib import Path
from orchestrator.sources.folder import watch_folder
folder, stop, ready, seen = Path(sys.argv[1]), threading.Event(), threading.Event(), set()
def sink(writes):
    seen.update(write.path for write in writes)
    if len(seen) == 31:
        print(json.dumps(sorted(seen)), flush=True)
        stop.set()
threading.Thread(target=lambda: ready.wait() and print("ready", flush=True)).start()
watch_folder(folder, sink, stop=stop, ready=ready)
"""


def own_namespace() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-Ur", "true"], check=False).returncode == 0


@pytest.mark.skipif(not own_namespace(), reason="the kernel gives no user namespace, whose limit could be lowered")
@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_where_the_kernel_has_no_watch_left_it_is_said_once_and_polled(tmp_path: Path, limit: str) -> None:
    for number in range(30):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}/f").write_text("1")
    allowed = {"watches": 10, "instances": 0}[limit]
    words = f"echo {allowed} > /proc/sys/user/max_inotify_{limit}; exec {sys.executable} -c '{LIMITED}' {tmp_path}"
    with subprocess.Popen(["unshare", "-Ur", "sh", "-c", words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        said = []
        for line in lines:
            said.append(line)
            if line == "ready\n":
                break
        for number in range(30):
            (tmp_path / f"d{number}/f").write_text("22")
        (tmp_path / "new").write_text("x")
        said += lines
    assert set(json.loads(said[-1])) == {f"d{number}/f" for number in range(30)} | {"new"}
    warnings = [line for line in said if "watch_polls" in line]
    assert len(warnings) == 1
    assert "sysctl fs.inotify" in warnings[0]


def test_a_link_as_the_folder_follows_its_swap_at_once(tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / "a.py").write_text(release)
    (tmp_path / "stable").symlink_to("releases/1")
    (tmp_path / "current").symlink_to("stable")  # a link to a link: the inner one is exchanged
    with FolderWatcher(tmp_path / "current") as watcher:
        stop = threading.Event()
        (tmp_path / "next").symlink_to("releases/2")
        (tmp_path / "next").replace(tmp_path / "stable")
        assert [(write.path, write.op) for write in watcher.take(stop, timeout_s=1.0)] == [("a.py", "modified")]
        (tmp_path / "releases/1/a.py").write_text("old, and not watched any more")
        (tmp_path / "releases/2/b.py").write_text("x")
        assert [write.path for write in watcher.take(stop, timeout_s=1.0)] == ["b.py"]


def test_the_shells_name_of_the_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "releases/1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    assert as_named(Path()) == tmp_path / "current"
    assert as_named(Path("site")) == tmp_path / "current/site"
    assert as_named(Path("../x")) == Path("../x"), "the kernel's, as every other program takes it"
    monkeypatch.setenv("PWD", str(tmp_path))
    assert as_named(Path()) == Path(), "the shell's word is not true any more"


def test_links_that_lead_out_are_named_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "watched"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (folder / "inner").symlink_to("sub")
    (folder / "out").symlink_to("../outside")
    with watching(folder) as watch:
        (folder / "sub/more").symlink_to(tmp_path / "outside")
        watch.flushed()
    said = [line for line in capfd.readouterr().out.splitlines() if "watch_links_lead_out" in line]
    assert ["'out'" in line for line in said] == [True, False]
    assert ["'sub/more'" in line for line in said] == [False, True]
    assert not any("inner" in line for line in said)


def test_rules_above_the_folder_hold_and_may_change(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / ".git/info").mkdir(exist_ok=True)
    (tmp_path / ".git/info/exclude").write_text("local/\n")
    (tmp_path / RULES_FILE).write_text("site/dist/\n*.log\n")
    with watching(site) as watch:
        for path in ("dist/bundle.js", "server.log", "local/x", "a.py"):
            (site / path).parent.mkdir(exist_ok=True)
            (site / path).write_text("x")
        assert {write.path for write in watch.flushed()} == {"a.py"}
        (tmp_path / RULES_FILE).write_text("*.py\n")
        watch.flushed()
        (site / "a.py").write_text("ignored now")
        (site / "server.log").write_text("watched now")
        assert {write.path for write in watch.flushed()} == {"a.py", "server.log"}
        assert [write.path for write in watch.writes].count("a.py") == 1


def test_an_ignored_file_that_is_included_is_a_write(tmp_path: Path) -> None:
    (tmp_path / RULES_FILE).write_text(".env\nout/\n")
    (tmp_path / "out").mkdir()
    with watching(tmp_path, include=[".env", "out/api.json"]) as watch:
        for path in (".env", "out/api.json", "out/other"):
            (tmp_path / path).write_text("x")
        assert {write.path for write in watch.flushed()} == {".env", "out/api.json"}
