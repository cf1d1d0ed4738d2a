"""Where a task happens: a folder under git, a watcher on it, and changes after each of which a restart is due."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.watchers import restarted_program
from bench.watchers.field import Place, Watcher
from bench.watchers.session import Session, session
from tests.servers.process import free_port

STATE = "state.txt"
FILES = 16
_READY_WITHIN_S = 20.0
_REST_S = 3.0
_ENDS_WITHIN_S = 20.0
_PRINTED = 500


@dataclass(kw_only=True)
class Seen:
    """What a watcher did in a task.

    ``restarts`` are all starts of the program but the first; ``needed`` those that the changes asked for; ``missed``
    the changes after which no program became ready; ``ready_s`` the seconds from each change's last write until one
    was; ``port_taken`` the starts that found the old program's port taken. ``alone`` are starts without a write.
    ``left`` names each process that was there 20 s after the end was asked for, ``ended_s`` when nothing was.
    ``printed`` is the end of the terminal's text where something went wrong.
    """

    restarts: int = 0
    needed: int = 0
    missed: int = 0
    ready_s: list[float] = field(default_factory=list)
    port_taken: int = 0
    alone: int = 0
    left: list[str] = field(default_factory=list)
    ended_s: float | None = None
    printed: str = ""


class Ground:
    """The folder of a task, called ``tree`` by its user, and what is seen there."""

    def __init__(self, tree: Path, running: Session) -> None:
        self.tree, self.session, self.seen = tree, running, Seen()

    def write(self, name: str, text: str) -> None:
        """Write a file in place."""
        (self.tree / name).write_text(text)

    def change(self, act: Callable[[], None], *, last_write_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """Change something for which one restart is due, wait for it, and until nothing more comes of it."""
        act()
        written_ns = last_write_ns()
        ready = self.session.await_ready(after_ns=written_ns, within_s=_READY_WITHIN_S)
        self.seen.needed += 1
        if ready is None:
            self.seen.missed += 1
        else:
            self.seen.ready_s.append((ready.at_ns - written_ns) / 1e9)
        self.session.await_rest(quiet_s=_REST_S, within_s=_READY_WITHIN_S)

    def leave_alone(self, *, for_s: float) -> None:
        """Write nothing for a while."""
        before = self.session.starts()
        time.sleep(for_s)
        self.seen.alone += self.session.starts() - before

    def end(self, ask: Callable[[], None]) -> None:
        """Ask for the end, and see what is left."""
        began_s = time.monotonic()
        ask()
        self.seen.left = self.session.await_end(within_s=_ENDS_WITHIN_S)
        if not self.seen.left:
            self.seen.ended_s = time.monotonic() - began_s


def committed_tree(folder: Path) -> Path:
    """Make the usual folder: 16 files and the state, committed."""
    tree = folder / "tree"
    tree.mkdir()
    git(tree, "init", "--quiet", "--initial-branch", "main")
    (tree / STATE).write_text("0")
    for number in range(FILES):
        (tree / f"module_{number}.py").write_text("0")
    commit(tree)
    return tree


def git(tree: Path, *words: str) -> None:
    """Run git there, as somebody."""
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True)


def commit(tree: Path) -> None:
    """Commit all that is there."""
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "all")


@contextmanager
def ground(watcher: Watcher, folder: Path, tree: Path, *, kind: str, shell: Path | None = None) -> Iterator[Ground]:
    """Start a watcher on a folder, from the shell's folder (``tree`` itself, if not said). Raises ``DidNotStart``."""
    log, data = folder / "notes", folder / "data"
    place = Place(tree=tree, data=data, free_port=free_port())
    words = [kind, str(log), str(free_port()), str(tree / STATE)]
    program = [sys.executable, "-I", "-S", restarted_program.__file__, *words]
    with session(watcher, place, program, log, shell=shell or tree) as running:
        running.await_rest(quiet_s=_REST_S, within_s=_READY_WITHIN_S)
        before = running.starts()
        here = Ground(tree, running)
        yield here
        notes = running.notes()
        here.seen.restarts = running.starts() - before
        here.seen.printed = running.printed[-_PRINTED:] if here.seen.missed or here.seen.left else ""
        here.seen.port_taken = sum(note.what == restarted_program.PORT_TAKEN for note in notes)
