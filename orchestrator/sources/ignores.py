"""Which entries of a watched folder are no writes, and which rule says so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from orchestrator.errors import InvalidInput
from orchestrator.sources.git_rules import Outer, compiled
from orchestrator.sources.gitignore import Rule, RuleList

ALWAYS_IGNORED: Final = (
    *(".git", ".venv/", "node_modules/", "__pycache__/"),
    *(".*.sw?", ".sw?", "4913", "*~"),  # vim: swap files, its probe whether a folder is writable, backups
    *(".#*", "\\#*#"),  # Emacs: locks, auto-saves
    *(".goutputstream-*", "*.kate-swp", ".~lock.*#", "*___jb_tmp___", "*___jb_old___", "*.tmp"),
)
"""gitignore patterns that hold in every watched folder. Source: CONTRACT section 6."""

_BUILT_IN: Final = RuleList("\n".join(ALWAYS_IGNORED).encode("ascii"), "built in")
_DATA_FOLDER: Final = "the data folder"


@dataclass(frozen=True, slots=True)
class Includes:
    """What is watched though a rule ignores it: gitignore patterns, and the folders on the way to them."""

    wanted: RuleList
    on_the_way: RuleList


class Judge(NamedTuple):
    """Decides about the entries of one folder."""

    lists: list[tuple[RuleList, bytes]]
    """The rules, those that win first, and the folder as each of them sees it."""
    folder: bytes
    wanted: RuleList | None
    never: frozenset[str]
    hidden: bool

    def watched(self, name: str, *, directory: bool) -> bool:
        """Say whether an entry is watched."""
        if name in self.never:
            return False
        raw = os.fsencode(name)
        if self.wanted is not None and self.wanted.last_match(self.folder, raw, directory=directory) is not None:
            return True
        if self.hidden:
            return False
        rule = self.rule(raw, directory=directory)
        return rule is None or not rule.ignores

    def rule(self, name: bytes, *, directory: bool) -> Rule | None:
        """Return the rule that decides, whatever is included."""
        for rules, folder in self.lists:
            rule = rules.last_match(folder, name, directory=directory)
            if rule is not None:
                return rule
        return None


@dataclass(frozen=True, slots=True)
class Ignores:
    """Which paths are no writes.

    ``folders`` are never looked into, whatever else is said. Then, the first that speaks: ``includes``,
    ``ALWAYS_IGNORED``, the rules files by their folder from the nearest on, and the rules from outside.
    """

    folders: frozenset[str]
    outer: Sequence[Outer] = ()
    includes: Includes | None = None
    rules: Mapping[str, RuleList] = field(default_factory=dict)

    def ignored(self, path: str, *, directory: bool = False) -> bool:
        """Say whether ``path`` is no write (git: nothing below an ignored folder comes back)."""
        return self.why(path, directory=directory) is not None

    def why(self, path: str, *, directory: bool = False) -> tuple[Rule, str] | None:
        """Return the rule that ignores ``path``, and the entry that it matched: itself or a folder above; else None."""
        hidden: tuple[Rule, str] | None = None
        for folder in [*folders_above(path)[1:], path]:
            is_directory = directory or folder != path
            if folder in self.folders:
                return Rule(_DATA_FOLDER, 0, folder, ignores=True), folder
            if self.included(folder, directory=is_directory):
                hidden = None
            elif hidden is None:
                rule = self.rule_for(folder, directory=is_directory)
                hidden = (rule, folder) if rule is not None and rule.ignores else None
        return hidden

    def watched(self, path: str, *, directory: bool, hidden: bool) -> bool:
        """Say whether the entry itself is watched. ``hidden``: the folder above it is there for the includes alone."""
        folder, _, name = path.rpartition("/")
        return self.judge(folder, hidden=hidden).watched(name, directory=directory)

    def judge(self, folder: str, *, hidden: bool) -> Judge:
        """Return what decides about the entries of one folder, given that the folder is not ignored.

        Of ``rules``, those of this folder and the ones above it are asked as they are now.
        """
        raw = os.fsencode(folder) + b"/" if folder else b""
        lists = [(_BUILT_IN, raw)]
        if self.rules:
            for above in reversed(_with_folders_above(folder)):
                rules = self.rules.get(above)
                if rules:
                    lists.append((rules, raw[len(os.fsencode(above)) + 1 :] if above else raw))
        lists += [(outer.rules, outer.prefix + raw) for outer in self.outer]
        wanted = self.includes.wanted if self.includes else None
        own = {path for path in self.folders if path.rpartition("/")[0] == folder}
        return Judge(lists, raw, wanted, frozenset(path.rpartition("/")[2] for path in own), hidden)

    def leads_to_included(self, path: str) -> bool:
        """Say whether an ignored folder is looked into because something that is included may be below it."""
        if self.includes is None or path in self.folders:
            return False
        return self.includes.on_the_way.last_match(*_split(path), directory=True) is not None

    def rule_for(self, path: str, *, directory: bool) -> Rule | None:
        """Return the rule that decides about the entry itself, given that no folder above it is ignored."""
        folder, _, name = path.rpartition("/")
        return self.judge(folder, hidden=False).rule(os.fsencode(name), directory=directory)

    def included(self, path: str, *, directory: bool) -> Rule | None:
        """Return the ``--include`` that names the entry itself."""
        if self.includes is None:
            return None
        return self.includes.wanted.last_match(*_split(path), directory=directory)


def includes_of(patterns: Sequence[str]) -> Includes | None:
    """Return what ``--include`` names. Raises ``InvalidInput`` for a pattern that can never match, or with ``!``."""
    on_the_way: list[str] = []
    for pattern in patterns:
        if "\n" in pattern or pattern.startswith("!") or not compiled(os.fsencode(pattern), "--include"):
            raise InvalidInput(
                f"--include: {pattern!r} is no pattern that can match; write one line as in .gitignore, such as .env",
                field="include",
            )
        parts = pattern.strip("/").split("/")
        on_the_way += ["/" + "/".join(parts[:depth]) + "/" for depth in range(1, len(parts))]
    if not patterns:
        return None
    wanted = RuleList(os.fsencode("\n".join(patterns)), "--include")
    return Includes(wanted, RuleList(os.fsencode("\n".join(on_the_way)), "--include"))


def folders_inside(root: str, folders: Iterable[Path]) -> frozenset[str]:
    """Return those of ``folders`` that lie inside ``root``, relative to it with ``/``; ``"."`` is ``root`` itself."""
    inside = (os.path.relpath(os.path.realpath(folder), os.path.realpath(root)) for folder in folders)
    return frozenset(path.replace(os.sep, "/") for path in inside if path != ".." and not path.startswith("../"))


def folders_above(path: str) -> tuple[str, ...]:
    """Return the folders above ``path``, the outermost (``""``) first."""
    return _with_folders_above(path.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _with_folders_above(folder: str) -> tuple[str, ...]:
    parts = folder.split("/") if folder else []
    return tuple("/".join(parts[:depth]) for depth in range(len(parts) + 1))


def _split(path: str) -> tuple[bytes, bytes]:
    folder, slash, name = os.fsencode(path).rpartition(b"/")
    return folder + slash, name
