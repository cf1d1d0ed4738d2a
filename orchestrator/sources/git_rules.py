"""The rules of git that hold in a folder but are not in it: of the repository around it, and of the user.

Read as git reads them, without git: an image may have none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import structlog

from orchestrator.domain.paths import escape_path
from orchestrator.sources.gitignore import RuleList

RULES_FILE = ".gitignore"
_ASK_GIT_S = 5.0

_log = structlog.get_logger(__name__)


class Outer(NamedTuple):
    """Rules from outside. ``prefix`` is what stands before a watched path to be relative to the rules' own folder."""

    rules: RuleList
    prefix: bytes


class OuterFiles(NamedTuple):
    """Where rules from outside are, or may be at some time: those nearest to the folder first; and their prefixes."""

    files: tuple[tuple[str, bytes, bool], ...]
    """Path, prefix, and whether it may be a symbolic link."""

    def read(self) -> tuple[Outer, ...]:
        """Return the rules as they are now, the ones that win first."""
        found = (Outer(read_rules(file, follow=follow), prefix) for file, prefix, follow in self.files)
        return tuple(outer for outer in found if outer.rules)

    def folders(self) -> dict[str, set[str]]:
        """Return the names to watch for, by their folder."""
        names: dict[str, set[str]] = {}
        for file, _, _ in self.files:
            names.setdefault(os.path.dirname(file), set()).add(os.path.basename(file))
        return names


def outer_files(root: str, user: str | None) -> OuterFiles:
    """Find the rules files for a folder. Where a rule there ignores the folder itself, none of them is taken.

    Who names a folder wants it watched, as ``rg`` and ``grep`` read a folder that is named though it is ignored.
    ``user`` is the file of ``users_file``.
    """
    root = os.path.realpath(root)
    top = _top_of_repository(root)
    if top is None:
        return OuterFiles(((user, b"", True),) if user else ())
    inside = os.fsencode(os.path.relpath(root, top))
    parts = [] if inside == b"." else inside.split(b"/")
    files = [
        (os.path.join(top, os.fsdecode(b"/".join(parts[:depth])), RULES_FILE), b"/".join(parts[depth:]) + b"/", False)
        for depth in reversed(range(len(parts)))
    ]
    whole = inside + b"/" if parts else b""
    git = _git_folder(Path(top))
    files += [(str(git / "info/exclude"), whole, True)] if git else []
    files += [(user, whole, True)] if user else []
    found = OuterFiles(tuple(files))
    rule = _rule_for_root(found.read(), parts)
    if rule is None:
        return found
    warn_once("watch_folder_ignored_by_git", root, f"{rule}; no rule from outside of it is taken")
    return OuterFiles(())


def users_file(root: str) -> str | None:
    """Return the user's own file of rules for every repository: git's ``core.excludesFile``, or its default.

    Asks git, where it is installed.
    """
    git = shutil.which("git")
    if git is not None:
        words = [git, "-C", root, "config", "--type=path", "--get", "core.excludesFile"]
        try:
            told = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=_ASK_GIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            warn_once("watch_rules_unreadable", "core.excludesFile", repr(error))
        else:
            if told.returncode == 0:
                return os.fsdecode(told.stdout.rstrip(b"\n")) or None
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(home, "git", "ignore")


def read_rules(file: str, *, follow: bool = False) -> RuleList:
    """Return the rules of a file; none where it is not there, no file, or cannot be read (the last is logged once).

    As git: a ``.gitignore`` that is a symbolic link is not read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)  # a pipe of that name holds nothing up
    try:
        opened = os.open(file, flags)
    except FileNotFoundError:
        return compiled(b"", file)
    except OSError as error:
        warn_once("watch_rules_unreadable", file, error.strerror or repr(error))
        return compiled(b"", file)
    try:
        # By number: `open` of a folder's number raises and leaves it open.
        text = b"".join(iter(lambda: os.read(opened, 1 << 16), b""))
    except OSError as error:
        warn_once("watch_rules_unreadable", file, error.strerror or repr(error))
        text = b""
    finally:
        os.close(opened)
    return compiled(text, file)


@lru_cache(maxsize=1024)
def compiled(text: bytes, source: str) -> RuleList:
    """Return the rules of a text, the same object for the same text and source."""
    return RuleList(text, source)


@lru_cache(maxsize=1024)
def warn_once(event: str, path: str, reason: str) -> None:
    """Log what every look would say again. A path may hold what no terminal takes, so it is escaped."""
    _log.warning(event, path=escape_path(path)[0], reason=reason)


def _rule_for_root(outer: tuple[Outer, ...], parts: list[bytes]) -> str | None:
    """Return the rule that ignores the watched folder or one above it, as a sentence's part."""
    for depth in range(1, len(parts) + 1):
        for rules, prefix in outer:
            within = prefix.rstrip(b"/").split(b"/")
            own = within[: max(0, depth - (len(parts) - len(within)))]
            rule = (
                rules.last_match(b"".join(part + b"/" for part in own[:-1]), own[-1], directory=True) if own else None
            )
            if rule is not None:
                if rule.ignores:
                    return f"{rule.source}:{rule.line}: {rule.text}"
                break
    return None


def _top_of_repository(root: str) -> str | None:
    """Return the top of the repository around a folder; one that is another user's is none, as for git.

    Who may write above the folder, as all may in /tmp, could hide its writes else.
    """
    trusted = {0, os.geteuid()}
    with suppress(OSError):  # it is gone for a moment: a link that is swapped, say
        trusted.add(os.stat(root).st_uid)
    for folder in (Path(root), *Path(root).parents):
        if _git_folder(folder) is not None:
            if (folder / ".git").lstat().st_uid in trusted:
                return str(folder)
            warn_once("watch_repository_of_another_user", str(folder), "its rules are not taken")
    return None


def _git_folder(top: Path) -> Path | None:
    """Return the folder with ``info/exclude`` of a repository's top: with worktrees, the one that they share."""
    dot_git = top / ".git"
    try:
        if dot_git.is_file():
            named = dot_git.read_bytes()
            if not named.startswith(b"gitdir:"):
                return None
            dot_git = top / os.fsdecode(named.removeprefix(b"gitdir:").strip())
        if not (dot_git / "HEAD").is_file():
            return None
        shared = dot_git / "commondir"
        return dot_git / os.fsdecode(shared.read_bytes().strip()) if shared.is_file() else dot_git
    except OSError as error:
        warn_once("watch_rules_unreadable", str(dot_git), error.strerror or repr(error))
        return None
