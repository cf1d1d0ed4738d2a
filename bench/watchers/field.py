"""Who restarts a program when files change: how each is started, with what its own guide tells a user to write."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

UP, WATCHEXEC, NODEMON, ENTR, WATCHFILES = "up", "watchexec", "nodemon", "entr", "watchfiles"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a task happens. ``tree`` is what is watched; ``data`` a folder beside it for the watcher's own files."""

    tree: Path
    data: Path
    free_port: int


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """One of them. ``said`` is its command for a reader, DIR and COMMAND being what is watched and restarted."""

    name: str
    version: str
    said: str
    command: Callable[[Place, Sequence[str]], list[str]]


def up(version: str) -> Watcher:
    """Return the product, with windows as short as an editor's user would set them."""
    numbers = ["--quiet", "250ms", "--max-wait", "60s", "--min-interval", "250ms"]

    def command(place: Place, program: Sequence[str]) -> list[str]:
        own = ["--data", str(place.data), "--port", str(place.free_port)]
        words = [sys.executable, "-m", "orchestrator", "up", *own, *numbers]
        return [*words, "--watch", str(place.tree), "--", *program]

    return Watcher(
        name=UP, version=version, said=f"orchestrator up {' '.join(numbers)} --watch DIR -- COMMAND", command=command
    )


def watchexec(program: Path, version: str) -> Watcher:
    """Return watchexec, as its README starts a server."""
    return Watcher(
        name=WATCHEXEC,
        version=version,
        said="watchexec --restart --watch DIR -- COMMAND",
        command=lambda place, words: [str(program), "--restart", "--watch", str(place.tree), "--", *words],
    )


def nodemon(node: Path, script: Path, version: str) -> Watcher:
    """Return nodemon for a program that is not JavaScript: it has to be told which names count."""
    options = ["--ext", "py,txt"]
    return Watcher(
        name=NODEMON,
        version=version,
        said=f"nodemon --watch DIR {' '.join(options)} --exec 'COMMAND'",
        command=lambda place, words: [
            *(str(node), str(script), "--watch", str(place.tree), *options, "--exec", shlex.join(words)),
        ],
    )


def entr(program: Path, version: str) -> Watcher:
    """Return entr in the loop of its manual page, with the list of files that git makes."""
    loop = "while sleep 0.1; do git ls-files -co --exclude-standard | entr -dr COMMAND; done"

    def command(place: Place, words: Sequence[str]) -> list[str]:
        inside = f"cd {shlex.quote(str(place.tree))} && "
        return [
            "sh",
            "-c",
            inside + loop.replace("entr", shlex.quote(str(program))).replace("COMMAND", shlex.join(words)),
        ]

    return Watcher(name=ENTR, version=version, said=f"cd DIR; {loop}", command=command)


def watchfiles(program: Path, version: str) -> Watcher:
    """Return the command line of watchfiles, as its guide has it."""
    return Watcher(
        name=WATCHFILES,
        version=version,
        said="watchfiles 'COMMAND' DIR",
        command=lambda place, words: [str(program), shlex.join(words), str(place.tree)],
    )
