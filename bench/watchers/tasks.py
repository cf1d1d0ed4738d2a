"""The ten tasks. Each starts a watcher on a folder of its own, changes something, ends it, and says what was seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.watchers import restarted_program as program
from bench.watchers.field import Watcher
from bench.watchers.ground import FILES, STATE, Seen, commit, committed_tree, git, ground

_BURST_S = 2.0
_CHECKED_OUT, _A_FOLDER = 20_000, 100


@dataclass(frozen=True, kw_only=True)
class Task:
    """``what`` says it to a reader; ``run`` does it in an empty folder. It raises ``DidNotStart``.

    One that is ``busy`` takes the machine's cores, so that nothing is measured beside it.
    """

    name: str
    what: str
    run: Callable[[Watcher, Path], Seen]
    busy: bool = False


def _burst(watcher: Watcher, folder: Path) -> Seen:
    def saved() -> None:
        for number in range(FILES):
            here.write(f"module_{number}.py", "1")
            time.sleep(_BURST_S / FILES)
        here.write(STATE, "1")

    with ground(watcher, folder, committed_tree(folder), kind=program.PLAIN) as here:
        here.change(saved)
        here.end(here.session.interrupt)
    return here.seen


def _atomic_save(watcher: Watcher, folder: Path) -> Seen:
    def saved(text: str) -> None:
        temporary = here.tree / ".state.txt.swp"
        temporary.write_text(text)
        temporary.replace(here.tree / STATE)

    with ground(watcher, folder, committed_tree(folder), kind=program.PLAIN) as here:
        for text in "123":
            here.change(lambda text=text: saved(text))  # type: ignore[misc]
        here.end(here.session.interrupt)
    return here.seen


def _single_writes(kind: str, count: int) -> Callable[[Watcher, Path], Seen]:
    def run(watcher: Watcher, folder: Path) -> Seen:
        with ground(watcher, folder, committed_tree(folder), kind=kind) as here:
            for number in range(1, count + 1):
                here.change(lambda text=str(number): here.write(STATE, text))  # type: ignore[misc]
            here.end(here.session.interrupt)
        return here.seen

    return run


def _crash_loop(watcher: Watcher, folder: Path) -> Seen:
    with ground(watcher, folder, committed_tree(folder), kind=program.FAILING) as here:
        here.write(STATE, program.FAILS)
        here.seen.needed = 1
        here.session.await_start(after_ns=time.monotonic_ns(), within_s=10.0)
        here.leave_alone(for_s=12.0)
        here.change(lambda: here.write(STATE, "mended"))
        here.end(here.session.interrupt)
    return here.seen


def _checkout(watcher: Watcher, folder: Path) -> Seen:
    tree = committed_tree(folder)
    files = [tree / f"d{number // _A_FOLDER}" / f"f{number}.py" for number in range(_CHECKED_OUT)]
    for branch in ("one", "two"):
        git(tree, "checkout", "--quiet", "-b", branch)
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.write_text(branch)
        (tree / STATE).write_text(branch)
        commit(tree)

    def last_write_ns() -> int:
        """Not the end of git, which writes its index after the last file."""
        return max(os.stat(file).st_mtime_ns for file in files) - (time.time_ns() - time.monotonic_ns())

    with ground(watcher, folder, tree, kind=program.PLAIN) as here:
        here.change(lambda: git(tree, "checkout", "--quiet", "one"), last_write_ns=last_write_ns)
        here.end(here.session.interrupt)
    return here.seen


def _terminal_closed(watcher: Watcher, folder: Path) -> Seen:
    with ground(watcher, folder, committed_tree(folder), kind=program.PLAIN) as here:
        here.end(here.session.close_terminal)
    return here.seen


def _ignored_file(watcher: Watcher, folder: Path) -> Seen:
    tree = committed_tree(folder)
    (tree / ".gitignore").write_text("build/\n")
    (tree / "build").mkdir()
    with ground(watcher, folder, tree, kind=program.PLAIN) as here:
        for number in range(5):
            here.write("build/out.txt", str(number))
            here.session.await_rest(quiet_s=1.5, within_s=4.0)
        here.change(lambda: here.write(STATE, "1"))
        here.end(here.session.interrupt)
    return here.seen


def _link_swapped(watcher: Watcher, folder: Path) -> Seen:
    shell = committed_tree(folder)
    link = shell / "current"
    for release in ("1", "2"):
        (shell / "releases" / release).mkdir(parents=True)
        (shell / "releases" / release / STATE).write_text(release)
    link.symlink_to("releases/1")

    def swapped() -> None:
        (shell / "next").symlink_to("releases/2")
        (shell / "next").replace(link)

    with ground(watcher, folder, link, kind=program.PLAIN, shell=shell) as here:
        here.change(swapped)
        here.change(lambda: here.write(STATE, "3"))
        here.end(here.session.interrupt)
    return here.seen


TASKS = (
    Task(name="burst of 17", what="17 files written over 2 s: one restart after the last is enough", run=_burst),
    Task(name="atomic save", what="three saves of one file by a temporary one and a rename", run=_atomic_save),
    Task(
        name="deaf program",
        what="a write while the program ignores every signal but KILL; then Ctrl-C",
        run=_single_writes(program.DEAF, 1),
    ),
    Task(
        name="grandchild",
        what="two writes while the program has one in the background that keeps its port; then Ctrl-C",
        run=_single_writes(program.GRANDCHILD, 2),
    ),
    Task(
        name="port in use",
        what="three writes while the program needs a second to end and has its port until then",
        run=_single_writes(program.SLOW_END, 3),
    ),
    Task(
        name="crash loop", what="a save that makes the program fail, 12 s of nothing, the mending save", run=_crash_loop
    ),
    Task(name="checkout", what=f"git checkout of {_CHECKED_OUT:,} files", run=_checkout, busy=True),
    Task(name="terminal closed", what="the window is closed", run=_terminal_closed),
    Task(
        name="ignored file", what="five writes of a file that .gitignore names, then one that counts", run=_ignored_file
    ),
    Task(
        name="link swapped",
        what="DIR is a link: it is exchanged for one to another folder, then a file there is written",
        run=_link_swapped,
    ),
)
