"""Symbolic links around a watched folder: those that its own name goes through, and those in it that lead out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_MOST_LINKS = 40
"""As the kernel: a path through more is refused."""


def as_named(directory: Path) -> Path:
    """Return a relative path as absolute where the shell's ``$PWD`` names the current folder by a symbolic link.

    ``cd current && ... --watch .`` means the link, not the folder that it names today. A path with ``..`` is the
    kernel's, not the shell's, and is left alone.
    """
    shell = os.environ.get("PWD", "")
    if directory.is_absolute() or ".." in directory.parts or not os.path.isabs(shell) or shell == os.getcwd():
        return directory
    try:
        same = os.path.samefile(shell, ".")
    except OSError:
        return directory
    return Path(os.path.normpath(os.path.join(shell, directory))) if same else directory


def names_on_the_way(path: str) -> dict[str, set[str]]:
    """Return the names, by their folder, whose exchange makes an absolute path name something else.

    These are the symbolic links that it goes through, those that they name, and its last part.
    """
    names: dict[str, set[str]] = {os.path.dirname(path): {os.path.basename(path)}}
    waiting = path.split("/")[1:]
    at = "/"
    links = 0
    while waiting:
        name = waiting.pop(0)
        here = os.path.normpath(os.path.join(at, name))
        if name not in ("", ".", "..") and links < _MOST_LINKS and os.path.islink(here):
            links += 1
            names.setdefault(at, set()).add(name)
            target = os.readlink(here)
            waiting = [*target.split("/"), *waiting]
            at = "/" if target.startswith("/") else at
        else:
            at = here
    return names


def leading_out(root: str, links: Iterable[str]) -> list[str]:
    """Return those links, relative to ``root``, that name something there is outside of it."""
    inside = os.path.realpath(root)
    found = []
    for link in sorted(links):
        target = os.path.realpath(os.path.join(root, link))
        if os.path.exists(target) and os.path.commonpath((inside, target)) != inside:
            found.append(link)
    return found
