"""What a watched folder holds, what of it is ignored, and what changed between two looks. Reads, never writes.

File notices alone are not enough: they are lost when a queue overflows, when a folder appears together with its files
and (watchfiles 1.3) after one name that is not UTF-8. Two looks at the tree tell what happened whatever was lost.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog
from pathspec import GitIgnoreSpec

from orchestrator.domain.events import Operation
from orchestrator.domain.path_patterns import with_classes
from orchestrator.domain.paths import escape_path

_log = structlog.get_logger(__name__)

RULES_FILE = ".gitignore"
_ANY_TEXT: Final = "simple"
"""Python's own engine: names that are not UTF-8 match exactly, and who writes .gitignore owns the machine."""

ALWAYS_IGNORED = (
    *(".git", ".venv/", "node_modules/", "__pycache__/"),
    *(".*.sw?", ".sw?", "4913", "*~"),  # vim: swap files, its probe whether a folder is writable, backups
    *(".#*", "\\#*#"),  # Emacs: locks, auto-saves
    *(".goutputstream-*", "*.kate-swp", ".~lock.*#", "*___jb_tmp___", "*___jb_old___", "*.tmp"),
)
"""gitignore patterns that hold in every watched folder. Source: CONTRACT section 6."""


@dataclass(frozen=True, slots=True)
class WatchedWrite:
    """One file was written. ``path`` is relative to the folder, with ``/``; other bytes as PEP 383 surrogates.

    A ``renamed`` file has its new path here; its old path is a ``deleted`` of its own.
    """

    path: str
    op: Operation


class Mark(NamedTuple):
    """What a file looked like: another mark means that it was written."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    def same_content(self, other: Mark) -> bool:
        """Say whether both are one file, unwritten: a rename changes ``changed_ns`` only."""
        return self[:3] == other[:3]


@dataclass(frozen=True, slots=True)
class Ignores:
    """Which paths are no writes: folders by name, ``ALWAYS_IGNORED``, and the rules files by their folder."""

    folders: frozenset[str]
    rules: Mapping[str, GitIgnoreSpec] = field(default_factory=dict)

    def ignored(self, path: str, *, directory: bool = False) -> bool:
        """Say whether ``path`` or a folder above it is ignored (git: nothing below an ignored folder comes back)."""
        above = _folders_above(path)
        return any(self.ignores_entry(folder, directory=True) for folder in above if folder) or self.ignores_entry(
            path, directory=directory
        )

    def ignores_entry(self, path: str, *, directory: bool) -> bool:
        """Say whether ``path`` itself is ignored, given that no folder above it is."""
        if path in self.folders or _matched(_always_ignored(), path, directory):
            return True
        for folder in reversed(_folders_above(path)):
            spec = self.rules.get(folder)
            verdict = _matched(spec, path[len(folder) + 1 if folder else 0 :], directory) if spec else None
            if verdict is not None:
                return verdict
        return False


@dataclass(frozen=True, slots=True)
class Tree:
    """One look at a folder: its files' marks, its sub-folders (``""`` is itself, if it is there), its ignore rules."""

    files: dict[str, Mark]
    directories: frozenset[str]
    ignores: Ignores


def scan(root: str, folders: frozenset[str]) -> Tree:
    """Look at every file of ``root`` that is not ignored; symbolic links are files and are not followed.

    Raises ``OSError`` where a look is not possible at all now (no descriptors left, an I/O error): a look that took
    such a folder for an empty one would call its files deleted.
    """
    rules: dict[str, GitIgnoreSpec] = {}
    ignores = Ignores(folders, rules)
    files: dict[str, Mark] = {}
    directories: set[str] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        entries = _entries(root, folder)
        if entries is None:
            continue
        directories.add(folder)
        if RULES_FILE in entries:
            rules[folder] = _rules_of(os.path.join(root, folder, RULES_FILE))
        for name in entries:
            path = f"{folder}/{name}" if folder else name
            found = mark_of(os.path.join(root, path))
            if found is None or ignores.ignores_entry(path, directory=found == "directory"):
                continue
            if found == "directory":
                waiting.append(path)
            else:
                files[path] = found
    return Tree(files, frozenset(directories), ignores)


def mark_of(path: str) -> Mark | Literal["directory"] | None:
    """Return a file's mark, or ``"directory"``; None for what is gone, unreachable, a socket, a pipe or a device."""
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    if stat.S_ISDIR(seen.st_mode):
        return "directory"
    if stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode):
        return Mark(seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return None


def writes_between(old: Tree, new: Tree) -> list[WatchedWrite]:
    """Return what was written between two looks. That a rule now hides or shows a file is no write."""
    created = [path for path in new.files if path not in old.files and not old.ignores.ignored(path)]
    deleted = [path for path in old.files if path not in new.files and not new.ignores.ignored(path)]
    modified = [path for path, mark in new.files.items() if old.files.get(path, mark) != mark]
    return named_writes(created, modified, [(path, old.files[path]) for path in deleted], new.files)


def named_writes(
    created: Iterable[str],
    modified: Iterable[str],
    deleted: Iterable[tuple[str, Mark]],
    files: Mapping[str, Mark],
) -> list[WatchedWrite]:
    """Return writes in the order of their paths; a created file that is a deleted one unwritten was renamed."""
    gone = dict(deleted)
    by_inode = {mark.inode: mark for mark in gone.values()}
    writes = [WatchedWrite(path, Operation.MODIFIED) for path in modified]
    writes += [WatchedWrite(path, Operation.DELETED) for path in gone]
    for path in created:
        before = by_inode.get(files[path].inode)
        renamed = before is not None and before.same_content(files[path])
        writes.append(WatchedWrite(path, Operation.RENAMED if renamed else Operation.CREATED))
    return sorted(writes, key=lambda write: write.path)


def folders_inside(root: str, folders: Iterable[Path]) -> frozenset[str]:
    """Return those of ``folders`` that lie inside ``root``, relative to it with ``/``; ``"."`` is ``root`` itself."""
    inside = (os.path.relpath(os.path.realpath(folder), os.path.realpath(root)) for folder in folders)
    return frozenset(path.replace(os.sep, "/") for path in inside if path != ".." and not path.startswith("../"))


def _entries(root: str, folder: str) -> list[str] | None:
    """Return the names in a folder in order; None where it is gone or may not be read."""
    try:
        return sorted(os.listdir(os.path.join(root, folder)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        _warn_once("watch_folder_unreadable", folder or ".", "permission denied")
        return None


def _folders_above(path: str) -> list[str]:
    """Return the folders above ``path``, the outermost (``""``) first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _matched(spec: GitIgnoreSpec, path: str, directory: bool) -> bool | None:
    """Return True for ignored, False for taken back by ``!``, None where no pattern speaks."""
    return spec.check_file(path + "/" if directory else path, separators=()).include


@lru_cache(maxsize=1)
def _always_ignored() -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(ALWAYS_IGNORED, backend=_ANY_TEXT)


def _rules_of(file: str) -> GitIgnoreSpec:
    try:
        # As git: a rules file that is a symbolic link is not read; nor may a pipe of that name hold the watch up.
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            text = opened.read()
    except OSError as error:
        _warn_once("watch_rules_unreadable", file, error.strerror or repr(error))
        text = b""
    return _compiled(text, file)


@lru_cache(maxsize=1024)
def _compiled(text: bytes, file: str) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(_good_lines(os.fsdecode(text).splitlines(), file), backend=_ANY_TEXT)


def _good_lines(lines: Iterable[str], file: str) -> Iterator[str]:
    for line in lines:
        try:
            spelled = with_classes(line)
            GitIgnoreSpec.from_lines([spelled], backend=_ANY_TEXT)
        except (ValueError, re.error) as error:
            _warn_once("watch_rule_not_understood", file, f"{line!a}: {error}")
        else:
            yield spelled


@lru_cache(maxsize=1024)
def _warn_once(event: str, path: str, reason: str) -> None:
    """Log what every look would say again. A path may hold what no terminal takes, so it is escaped."""
    _log.warning(event, path=escape_path(path)[0], reason=reason)
