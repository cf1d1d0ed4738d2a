"""Watching a folder: file writes under it, given to a sink that may be away for a while.

Notices come from the kernel, folder by folder. Where they can be lost (a full queue, no watches left, a file system
without notices) the tree is looked at again and compared, so lost track heals by itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from orchestrator.domain.paths import escape_path
from orchestrator.errors import InvalidInput
from orchestrator.sources.git_rules import RULES_FILE, outer_files, users_file
from orchestrator.sources.ignores import Ignores, folders_inside, includes_of
from orchestrator.sources.kept_marks import KeptMarks
from orchestrator.sources.links import leading_out, names_on_the_way
from orchestrator.sources.notices import Noticed, Notices, NoWatchLeft
from orchestrator.sources.outbox import Outbox, Sink
from orchestrator.sources.tree import (
    Changed,
    Mark,
    Tree,
    WatchedWrite,
    changes_between,
    has_other_names,
    look,
    mark_of,
    named_writes,
    replaced_below,
)
from orchestrator.sources.unwatched import Unwatched

__all__ = ["FolderWatcher", "Outbox", "Sink", "WatchedWrite", "watch_folder", "workspace_name"]

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 5.0
_LOOK_SHARE = 50  # a look that takes 1 s happens every 50 s at most: 2 % of a core
_LOOK_EVERY_POLLED_S = 1.0
_LOOK_SHARE_POLLED = 2.5  # 0.29 of a core at most
_REMEDY = "raise it: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024"
_LINKS_NAMED = 5

_MAX_NAME = 128
_FOREIGN = re.compile(r"[^A-Za-z0-9._:-]")


def workspace_name(directory: Path, taken: Callable[[str], bool]) -> str:
    """Return the workspace id for a folder: its base name, foreign characters as ``-``, at most 128 characters.

    An id does not begin with ``-``: one that would is given ``_`` there.

    Where ``taken`` says that another folder has that name: plus ``-`` and 6 hex digits of the SHA-256 of the
    absolute path. Source: CONTRACT section 6.
    """
    absolute = os.path.abspath(directory)
    name = _FOREIGN.sub("-", os.path.basename(absolute)) or "_"
    if name.startswith("-"):
        name = f"_{name[1:]}"
    if not taken(name[:_MAX_NAME]):
        return name[:_MAX_NAME]
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:6]
    return f"{name[: _MAX_NAME - 7]}-{digest}"


def watch_folder(
    directory: Path,
    sink: Sink,
    *,
    stop: threading.Event,
    ready: threading.Event,
    ignore: Sequence[Path] = (),
    include: Sequence[str] = (),
    kept: KeptMarks | None = None,
) -> int:
    """Give every write under ``directory`` to ``sink`` until ``stop`` is set; blocks, so it wants a thread.

    Returns how many writes the sink has not taken. ``ready`` is set once the watch is armed: every later write is
    seen. ``ignore`` are folders whose files are no writes, such as the data folder; ``include`` are gitignore patterns
    of files that are watched though a rule ignores them. With ``kept``, what was written or not delivered since the
    last run is given to the sink first. When ``sink`` raises, its writes are kept and offered again with a back-off of
    0.1 s to 5 s; a sink that is given writes which the server refuses must drop them itself. Above 10,000 that wait,
    only the last write of each path is kept; above 100,000 paths all become one write of ``.`` ("assume changed").
    Raises ``InvalidInput`` if ``directory`` cannot be watched at the start; if it goes away later, its files are
    ``deleted`` and it is watched again when it is back.
    """
    before = kept.load() if kept is not None else None
    with FolderWatcher(directory, ignore=ignore, include=include, before=before) as watcher:
        if kept is not None and before is None:
            kept.replace(watcher.files)
        outbox = Outbox(sink, None if kept is None else lambda writes: kept.delivered(writes, watcher.files))
        ready.set()
        while not stop.is_set():
            outbox.add(watcher.take(stop, timeout_s=outbox.retry_in_s()))
            outbox.send()
        if kept is not None and not outbox.waiting:
            kept.replace(watcher.files)
    if outbox.waiting:
        _log.warning("watch_writes_undelivered", folder=escape_path(str(directory))[0], writes=len(outbox.waiting))
    return len(outbox.waiting)


class FolderWatcher:
    """The file writes under one folder. Armed when constructed; raises ``InvalidInput`` if there is no such folder."""

    def __init__(
        self,
        directory: Path,
        *,
        ignore: Sequence[Path] = (),
        include: Sequence[str] = (),
        before: Mapping[str, Mark] | None = None,
    ) -> None:
        """``before`` are the files of an earlier run: the first ``take`` gives what was written since."""
        self._root = _readable(directory)
        self._folders = folders_inside(self._root, ignore)
        if "." in self._folders:
            raise InvalidInput(
                f"{str(directory)!r} is the data folder itself; put the data folder elsewhere (--data)", field="watch"
            )
        self._includes = includes_of(include)
        self._users_rules = users_file(self._root)
        self._no_watch_left: str | None = None
        self._polled = False
        self._links_named: set[str] = set()
        self._look_at_s = self._glance_at_s = 0.0
        self._unwatched = Unwatched(self._root)
        self._tree: Tree | None = None
        self._notices = self._open_notices()
        try:
            self._look_at_all()
        except BaseException:
            self.close()
            raise
        self._missed = self._written_since(before) if before is not None else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def files(self) -> Mapping[str, Mark]:
        """All files that are watched, as they were when last looked at."""
        return self._tree.files if self._tree else {}

    def close(self) -> None:
        """End the watch; ``take`` may not be called any more."""
        if self._notices is not None:
            self._notices.close()

    def take(self, stop: threading.Event, *, timeout_s: float | None = None) -> list[WatchedWrite]:
        """Wait for writes and return them, in the order of their paths, at most one for a path.

        Returns an empty list when ``stop`` is set (within 0.1 s), after ``timeout_s``, or when all of it was ignored.
        A file that came and went within one batch (an atomic save's temporary) is no write.
        """
        if self._missed:
            missed, self._missed = self._missed, []
            return missed
        next_s = min(self._look_at_s, self._glance_at_s) if self._polled else self._look_at_s
        wait_s = max(0.0, next_s - time.monotonic())
        noticed = self._wait(stop, wait_s if timeout_s is None else min(wait_s, timeout_s))
        changed = Changed([], [], [])
        if noticed is not None:
            self._take_noticed(noticed, changed)
        if not stop.is_set() and time.monotonic() >= self._look_at_s:
            _add(changed, self._look_at_all())
        elif not stop.is_set() and self._polled and time.monotonic() >= self._glance_at_s:
            self._glance(changed)
        return named_writes(changed, self.files)

    def _wait(self, stop: threading.Event, timeout_s: float) -> Noticed | None:
        if self._notices is not None:
            return self._notices.read(stop, timeout_s)
        stop.wait(timeout_s)
        return None

    def _take_noticed(self, noticed: Noticed, changed: Changed) -> None:
        """Add what the notices stand for, as the disk is now."""
        for path, written in noticed.paths.items():
            self._take_file(path, changed, written=written)
        folders = noticed.folders | _ruled(noticed.paths)
        self._look_into({"", *folders} if noticed.everything else folders, changed)

    def _glance(self, changed: Changed) -> None:
        """Compare the folders without a watch."""
        busy_s = time.thread_time()
        folders, paths = self._unwatched.differing(self.files)
        for path in paths:
            self._take_file(path, changed, written=False)
        self._look_into({*folders, *_ruled(paths)}, changed)
        self._glance_at_s = time.monotonic() + max(
            _LOOK_EVERY_POLLED_S, (time.thread_time() - busy_s) * _LOOK_SHARE_POLLED
        )

    def _look_into(self, folders: set[str], changed: Changed) -> None:
        if "" in folders:
            _add(changed, self._look_at_all())
            return
        for folder in sorted(folders):
            if not any(above in folders for above in _all_above(folder)):
                _add(changed, self._look_below(folder))

    def _take_file(self, path: str, changed: Changed, *, written: bool) -> None:
        """Compare one file. ``written``: other content, whatever its times say."""
        tree = self._tree
        if tree is None or not tree.watches(path):
            return
        full = os.path.join(self._root, path)
        found, known = mark_of(full), tree.files.get(path)
        if found is None or found == "directory":
            if known is not None:
                changed.deleted.append((path, tree.files.pop(path)))
            return
        tree.files[path] = found
        if known is None:
            changed.created.append(path)
            if os.path.islink(full):
                self._name_links([path])
        elif not found.same_content(known) or (written and known.may_differ_from(found)):
            changed.modified.append(path)
            if has_other_names(full):  # which get no notice of their own
                same = [other for other, mark in tree.files.items() if mark.inode == known.inode == found.inode]
                for other in same:
                    if other != path and tree.files[other] != found:
                        tree.files[other] = found
                        changed.modified.append(other)

    def _look_at_all(self) -> Changed:
        """Compare the whole folder with the last look, and watch the folders that it has now."""
        started_s, busy_s = time.monotonic(), time.thread_time()
        self._no_watch_left = None if self._notices is not None else self._no_watch_left
        outer = outer_files(self._root, self._users_rules)
        names = names_on_the_way(self._root)
        for folder, files in outer.folders().items():
            names.setdefault(folder, set()).update(files)
        changed = Changed([], [], [])
        try:
            for folder in sorted(names):
                self._arm_outside(folder, names[folder])
            ignores = Ignores(self._folders, outer.read(), self._includes)
            changed = self._compare(look(self._root, ignores, known=self._tree, arm=self._arm), "")
        except OSError as error:
            if self._tree is None:
                raise InvalidInput(f"{self._root} cannot be watched: {error.strerror}", field="watch") from None
            _log.warning("watch_look_failed", folder=escape_path(self._root)[0], error=repr(error))
            self._look_at_s = started_s + _LOOK_EVERY_POLLED_S
            return changed
        gone = self._tree is not None and "" not in self._tree.directories
        self._say_whether_polled()
        least_s = _LOOK_EVERY_POLLED_S if gone else _LOOK_EVERY_S
        now_s = time.monotonic()
        self._look_at_s = now_s + max(least_s, (time.thread_time() - busy_s) * _LOOK_SHARE)
        self._glance_at_s = now_s + _LOOK_EVERY_POLLED_S
        return changed

    def _look_below(self, folder: str) -> Changed:
        """Compare one folder, and all below it, with the last look."""
        if self._tree is None:
            return self._look_at_all()
        try:
            new = look(self._root, self._tree.ignores, start=folder, known=self._tree, arm=self._arm)
        except OSError as error:
            _log.warning("watch_look_failed", folder=escape_path(self._root)[0], error=repr(error))
            self._look_at_s = time.monotonic() + _LOOK_EVERY_POLLED_S
            return Changed([], [], [])
        if self._no_watch_left is not None and not self._polled:
            self._look_at_s = 0.0  # the whole look says so, and goes over to polling
        return self._compare(new, folder)

    def _compare(self, new: Tree, start: str) -> Changed:
        old = self._tree
        if old is None:
            self._tree, changed = new, Changed([], [], [])
        else:
            if "" in old.directories and not start and "" not in new.directories:
                _log.warning("watch_folder_gone", folder=escape_path(self._root)[0])
            changed = changes_between(old, new, start)
            self._tree = replaced_below(old, new, start)
        if self._notices is not None:
            self._notices.keep_only(self._tree.directories)
        self._unwatched.keep_only(self._tree.directories)
        self._name_links(new.links)
        return changed

    def _written_since(self, before: Mapping[str, Mark]) -> list[WatchedWrite]:
        tree = self._tree
        if tree is None:
            return []
        changed = changes_between(Tree(tree.ignores, dict(before)), tree)
        return named_writes(changed, tree.files)

    def _open_notices(self) -> Notices | None:
        try:
            return Notices(self._root)
        except NoWatchLeft as error:
            self._no_watch_left = str(error)
            return None

    def _arm(self, folder: str) -> None:
        """Watch a folder. When the kernel has no watch left, those without one are polled."""
        if self._notices is not None and self._no_watch_left is None:
            try:
                self._notices.arm(folder)
            except NoWatchLeft as error:
                self._no_watch_left = str(error)
        if self._notices is not None and self._notices.has(folder):
            self._unwatched.discard(folder)
        else:
            self._unwatched.note(folder)

    def _arm_outside(self, folder: str, names: set[str]) -> None:
        if self._notices is None or self._no_watch_left is not None:
            return
        try:
            self._notices.arm_outside(folder, names)
        except NoWatchLeft as error:
            self._no_watch_left = str(error)

    def _say_whether_polled(self) -> None:
        polled = self._no_watch_left is not None
        if polled and not self._polled:
            _log.warning(
                "watch_polls",
                folder=escape_path(self._root)[0],
                reason=f"the kernel's limit of watches is reached ({self._no_watch_left})",
                remedy=_REMEDY,
                every_s=_LOOK_EVERY_POLLED_S,
            )
        elif self._polled and not polled:
            _log.warning("watch_polls_no_more", folder=escape_path(self._root)[0])
        self._polled = polled

    def _name_links(self, links: Sequence[str] | set[str]) -> None:
        """Say once of each link that leads out that nothing beyond it is watched."""
        new = leading_out(self._root, set(links) - self._links_named)
        self._links_named.update(links)
        if new:
            _log.warning(
                "watch_links_lead_out",
                folder=escape_path(self._root)[0],
                links=[escape_path(link)[0] for link in new[:_LINKS_NAMED]],
                count=len(new),
                remedy="what they name is not watched; watch its folder too, or have it in this one",
            )


def _readable(directory: Path) -> str:
    root = os.path.abspath(directory)
    if not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
        raise InvalidInput(
            f"{str(directory)!r} is not a folder that can be read; name an existing one to watch", field="watch"
        )
    return root


def _add(changed: Changed, more: Changed) -> None:
    changed.created.extend(more.created)
    changed.modified.extend(more.modified)
    changed.deleted.extend(more.deleted)


def _ruled(paths: Iterable[str]) -> set[str]:
    """Return the folders whose rules file is among these."""
    split = (path.rpartition("/") for path in paths)
    return {folder for folder, _, name in split if name == RULES_FILE}


def _all_above(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
