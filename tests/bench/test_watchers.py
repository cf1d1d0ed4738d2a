"""What the comparison of watchers says of each is what happened, and it leaves nothing behind."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.watchers import restarted_program
from bench.watchers.comparison import Result, into_page, who_did_better
from bench.watchers.field import UP, Place, Watcher
from bench.watchers.ground import STATE, Seen
from bench.watchers.session import DidNotStart, session
from bench.watchers.tasks import TASKS
from tests.servers.process import free_port


def watcher(script: str) -> Watcher:
    """One that runs a shell's script, in which PROGRAM stands for what is to be restarted."""

    def command(place: Place, words: Sequence[str]) -> list[str]:
        return ["sh", "-c", script.replace("PROGRAM", shlex.join(words))]

    return Watcher(name="script", version="1", said=script, command=command)


def place_of(tmp_path: Path) -> tuple[Place, list[str], Path]:
    (tmp_path / STATE).write_text("0")
    log = tmp_path / "notes"
    words = [restarted_program.PLAIN, str(log), str(free_port()), str(tmp_path / STATE)]
    program = [sys.executable, "-I", "-S", restarted_program.__file__, *words]
    return Place(tree=tmp_path, data=tmp_path, free_port=0), program, log


def test_what_a_watcher_leaves_behind_is_seen_and_ended(tmp_path: Path) -> None:
    place, program, log = place_of(tmp_path)
    with session(watcher("setsid PROGRAM & wait"), place, program, log, shell=tmp_path) as running:
        assert running.starts() == 1
        running.close_terminal()
        assert running.await_end(within_s=1.0) == ["program"]
    assert running.await_end(within_s=0.0) == []
    assert running.ended


def test_a_watcher_that_ends_its_program_leaves_nothing(tmp_path: Path) -> None:
    place, program, log = place_of(tmp_path)
    with session(watcher("exec PROGRAM"), place, program, log, shell=tmp_path) as running:
        running.interrupt()
        assert running.await_end(within_s=20.0) == []


def test_a_watcher_whose_program_never_starts_is_told_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.watchers.session.STARTS_WITHIN_S", 1.0)
    place, program, log = place_of(tmp_path)
    with (
        pytest.raises(DidNotStart, match="no such thing"),
        session(watcher("echo no such thing"), place, program, log, shell=tmp_path),
    ):
        pytest.fail("it has not started")


def result(name: str, **seen: object) -> Result:
    return Result(task=TASKS[0], watcher=name, turns=[Seen(needed=1, **seen)])  # type: ignore[arg-type]


def test_who_did_better_is_told_by_what_went_wrong_and_by_needless_restarts() -> None:
    ours = result(UP, restarts=2)
    worse = [result("a", restarts=3), result("b", missed=1), result("c", restarts=1, left=["program"])]
    assert list(who_did_better([ours, *worse])) == []
    assert len(list(who_did_better([ours, result("d", restarts=1)]))) == 1
    assert len(list(who_did_better([result(UP, restarts=1, port_taken=1), result("e", restarts=1)]))) == 1


def test_a_page_keeps_all_but_its_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- made by ./dev bench watchers --write-page -->\nold\n<!-- end of what was made -->\nafter\n"
    )
    for _ in range(2):
        into_page(page, "new")
    assert page.read_text() == (
        "before\n<!-- made by ./dev bench watchers --write-page -->\nnew\n<!-- end of what was made -->\nafter\n"
    )
    page.write_text("none\n")
    with pytest.raises(ValueError, match="no place"):
        into_page(page, "new")
