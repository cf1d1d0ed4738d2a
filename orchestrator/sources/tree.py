"""What a watched folder holds, and what changed between two looks at it. Reads, never writes.

File notices alone are not enough: they are lost when a queue overflows and come late for a folder that appears together
with its files. Two looks at the tree tell what happened whatever was lost.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from orchestrator.domain.events import Operation
from orchestrator.sources.git_rules import RULES_FILE, read_rules, warn_once
from orchestrator.sources.ignores import Ignores, folders_above

CLOCK_STEP_NS: Final = 20_000_000
"""Two writes within one step of the kernel's clock leave the same times; more than its longest, 10 ms."""

_MARKED: Final = (stat.S_IFREG, stat.S_IFLNK)


class Mark(NamedTuple):
    """What a file looked like. ``changed_ns`` is 0 where a later write could leave the same, or it is not known."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    def same_content(self, other: Mark) -> bool:
        """Say whether both are one file, unwritten: a rename, a link, another owner or mode change only the rest."""
        return self[:3] == other[:3]

    def may_differ_from(self, later: Mark) -> bool:
        """Say whether other content may have been written between the two, though size and time were put back."""
        return self.changed_ns == 0 or self.changed_ns != later.changed_ns


@dataclass(frozen=True, slots=True)
class WatchedWrite:
    """One file was written. ``path`` is relative to the folder, with ``/``; other bytes as PEP 383 surrogates.

    A ``renamed`` file has its new path here; its old path is a ``deleted`` of its own.
    """

    path: str
    op: Operation
    mark: Mark | None = field(default=None, compare=False)
    """How the file looked after this write; None where it is gone."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What a look found: files' marks, sub-folders (``""`` is the folder itself, if it is there), the rules that held.

    ``hidden`` folders are ignored, and looked into because something that is included may be below them. ``links`` are
    the symbolic links among the files.
    """

    ignores: Ignores
    files: dict[str, Mark] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)

    def watches(self, path: str) -> bool:
        """Say whether a file in one of this tree's folders is watched."""
        return self.ignores.watched(path, directory=False, hidden=path.rpartition("/")[0] in self.hidden)


class Changed(NamedTuple):
    """What differs, as paths: what writes are named from."""

    created: list[str]
    modified: list[str]
    deleted: list[tuple[str, Mark]]


def look(
    root: str, ignores: Ignores, *, start: str = "", known: Tree | None = None, arm: Callable[[str], None] | None = None
) -> Tree:
    """Look at every file below ``start`` that is not ignored; symbolic links are files and are not followed.

    ``known`` is the look before, and needed where ``start`` is not the whole folder. ``arm`` is called with each folder
    before it is read, so that whatever the look comes too early for has a notice. Raises ``OSError`` where a look is
    not possible at all now (no descriptors left, an I/O error): one that took such a folder for an empty one would
    call its files deleted.
    """
    rules = {
        folder: of_folder
        for folder, of_folder in (known.ignores.rules if known else {}).items()
        if start and not is_below(folder, start)
    }
    tree = Tree(Ignores(ignores.folders, ignores.outer, ignores.includes, rules))
    waiting = _entrance(tree, start, known)
    while waiting:
        folder = waiting.pop()
        entries = _entries(root, folder, arm)
        if entries is None:
            tree.hidden.discard(folder)
            continue
        tree.directories.add(folder)
        if any(entry.name == RULES_FILE for entry in entries):
            rules[folder] = read_rules(os.path.join(root, folder, RULES_FILE))
        judged = known.files if known and _judged_alike(known, tree, folder) else {}
        waiting += _take(tree, folder, entries, judged)
    return tree


def mark_of(path: str) -> Mark | Literal["directory"] | None:
    """Return a file's mark, or ``"directory"``; None for what is gone, unreachable, a socket, a pipe or a device."""
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    return "directory" if stat.S_ISDIR(seen.st_mode) else _mark(seen, time.time_ns())


def has_other_names(path: str) -> bool:
    """Say whether a file has hard links."""
    try:
        return os.lstat(path).st_nlink > 1
    except OSError:
        return False


def changes_between(old: Tree, new: Tree, start: str = "") -> Changed:
    """Return what was written below ``start`` between two looks; ``new`` is a look at that part.

    That a rule now hides or shows a file is no write, nor is a change of a file's owner, mode or number of links.
    """
    before, after = old.files, new.files
    if start:
        before = {path: mark for path, mark in before.items() if is_below(path, start)}
    created = [path for path in after.keys() - before.keys() if not old.ignores.ignored(path)]
    deleted = [path for path in before.keys() - after.keys() if not new.ignores.ignored(path)]
    # A look takes over the mark of a file that looks as before.
    differing = [path for path, mark in after.items() if before.get(path, mark) is not mark]
    modified = [path for path in differing if not before[path].same_content(after[path])]
    return Changed(created, modified, [(path, before[path]) for path in deleted])


def replaced_below(old: Tree, new: Tree, start: str) -> Tree:
    """Return ``old`` with what is below ``start`` as ``new``, a look at that part, has it."""
    if not start:
        return new
    for kept, looked_at in ((old.directories, new.directories), (old.hidden, new.hidden), (old.links, new.links)):
        kept.difference_update([path for path in kept if is_below(path, start)])
        kept.update(looked_at)
    for path in [path for path in old.files if is_below(path, start)]:
        del old.files[path]
    old.files.update(new.files)
    return Tree(new.ignores, old.files, old.directories, old.hidden, old.links)


def named_writes(changed: Changed, files: Mapping[str, Mark]) -> list[WatchedWrite]:
    """Return writes in the order of their paths; a created file that is a deleted one unwritten was renamed."""
    by_inode = {mark.inode: mark for _, mark in changed.deleted}
    operations = dict.fromkeys(changed.modified, Operation.MODIFIED)
    operations |= {path: Operation.DELETED for path, _ in changed.deleted if path not in files}
    for path in changed.created:
        mark = files.get(path)
        if mark is not None:
            before = by_inode.get(mark.inode)
            renamed = before is not None and before.same_content(mark)
            operations[path] = Operation.RENAMED if renamed else Operation.CREATED
    return [WatchedWrite(path, operations[path], files.get(path)) for path in sorted(operations)]


def is_below(path: str, folder: str) -> bool:
    """Say whether ``path`` is ``folder`` or below it."""
    return not folder or path == folder or path.startswith(folder + "/")


def _entrance(tree: Tree, start: str, known: Tree | None) -> list[str]:
    """Return ``start`` if it is to be looked into."""
    if not start:
        return [""]
    above = start.rpartition("/")[0]
    if known is None or above not in known.directories:
        return []
    watched = tree.ignores.watched(start, directory=True, hidden=above in known.hidden)
    return [start] if watched or _on_the_way(tree, start) else []


def _on_the_way(tree: Tree, folder: str) -> bool:
    """Say whether an ignored folder is looked into for the includes; note it."""
    if not tree.ignores.leads_to_included(folder):
        return False
    tree.hidden.add(folder)
    return True


def _entries(root: str, folder: str, arm: Callable[[str], None] | None) -> list[os.DirEntry[str]] | None:
    """Return what is in a folder; None where it is gone or may not be read."""
    try:
        if arm is not None:
            arm(folder)
        with os.scandir(os.path.join(root, folder)) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        warn_once("watch_folder_unreadable", folder or ".", "permission denied")
        return None


def _judged_alike(known: Tree, tree: Tree, folder: str) -> bool:
    """Say whether the files of a folder were judged by the rules that hold now."""
    before, now = known.ignores, tree.ignores
    return (
        folder in known.directories
        and (folder in known.hidden) is (folder in tree.hidden)
        and before.outer == now.outer
        and all(
            before.rules.get(above) is now.rules.get(above) for above in folders_above(f"{folder}/" if folder else "")
        )
    )


def _take(tree: Tree, folder: str, entries: Iterable[os.DirEntry[str]], judged: Mapping[str, Mark]) -> list[str]:
    """Note a folder's files; return the folders in it that are to be looked into. ``judged`` files are watched."""
    below: list[str] = []
    files = tree.files
    prefix = f"{folder}/" if folder else ""
    judge = tree.ignores.judge(folder, hidden=folder in tree.hidden)
    now_ns = time.time_ns()
    for entry in entries:
        path = prefix + entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                if judge.watched(entry.name, directory=True) or _on_the_way(tree, path):
                    below.append(path)
                continue
            known = judged.get(path)
            if known is None and not judge.watched(entry.name, directory=False):
                continue
            mark = _mark(entry.stat(follow_symlinks=False), now_ns, known)
        except OSError:
            continue  # gone by now, and there is a notice of that; or unreachable
        if mark is not None:
            files[path] = mark
            if entry.is_symlink():
                tree.links.add(path)
    return below


def _mark(seen: os.stat_result, now_ns: int, known: Mark | None = None) -> Mark | None:
    """Return the mark of a file, ``known`` itself if it looks as then; None for what is neither file nor link."""
    changed_ns = seen.st_ctime_ns
    if known is not None and changed_ns == known[3] and seen.st_mtime_ns == known[2] and seen.st_ino == known[0]:
        return known  # with the same time of change it has the same size too
    if stat.S_IFMT(seen.st_mode) not in _MARKED:
        return None
    if now_ns - changed_ns < CLOCK_STEP_NS:
        changed_ns = 0
    # By the class of tuples: a look makes one for every file, and the named one's own way takes three times as long.
    return tuple.__new__(Mark, (seen.st_ino, seen.st_size, seen.st_mtime_ns, changed_ns))
