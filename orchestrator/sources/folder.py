"""Watching a folder: file writes under it, given to a sink that may be away for a while.

Notices come from watchfiles, folder by folder (not recursively: that would follow symbolic links out of the folder and
spend kernel watches on ``node_modules``). Where notices can be lost (a new folder, a broken watch, a full queue, a
file system without notices) the tree is looked at again and compared, so lost track heals by itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

# Not `watchfiles.watch`: that arms at its first `next()` and does not say when; here construction arms.
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from orchestrator.domain.events import Operation
from orchestrator.domain.paths import escape_path
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.sources.tree import (
    RULES_FILE,
    Mark,
    Tree,
    WatchedWrite,
    folders_inside,
    mark_of,
    named_writes,
    scan,
    writes_between,
)

__all__ = ["FolderWatcher", "Outbox", "Sink", "WatchedWrite", "watch_folder", "workspace_name"]

_log = structlog.get_logger(__name__)

Sink = Callable[[Sequence[WatchedWrite]], None]
"""Takes some writes, all or none; raising means: none of them, offer them again."""

# Small numbers: the server's window does the coalescing, this only gathers one save's notices.
_DEBOUNCE_MS = 50
_STEP_MS = 20

_LOOK_EVERY_S = 5.0
_LOOK_EVERY_POLLED_S = 1.0
_LOOK_SHARE = 50  # a look that takes 1 s happens every 50 s at most: 2 % of a core

_SINK_BATCH = 1_000
_MAX_WAITING = 10_000
_MAX_WAITING_PATHS = 100_000
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0

_MAX_NAME = 128
_SURROGATE = re.compile("[\ud800-\udfff]")
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
    directory: Path, sink: Sink, *, stop: threading.Event, ready: threading.Event, ignore: Sequence[Path] = ()
) -> None:
    """Give every write under ``directory`` to ``sink`` until ``stop`` is set; blocks, so it wants a thread.

    ``ready`` is set once the watch is armed: every later write is seen. ``ignore`` are folders whose files are no
    writes, such as the data folder. When ``sink`` raises, its writes are kept and offered again with a back-off of
    0.1 s to 5 s; a sink that is given writes which the server refuses must drop them itself. Above 10,000 that wait,
    only the last write of each path is kept; above 100,000 paths all become one write of ``.`` ("assume changed").
    Raises ``InvalidInput`` if ``directory`` cannot be watched at the start; if it goes away later, its files are
    ``deleted`` and it is watched again when it is back.
    """
    with FolderWatcher(directory, ignore=ignore) as watcher:
        ready.set()
        outbox = Outbox(sink)
        while not stop.is_set():
            outbox.add(watcher.take(stop, timeout_s=outbox.retry_in_s()))
            outbox.send()
    if outbox.waiting:
        _log.warning("watch_writes_undelivered", folder=escape_path(str(directory))[0], writes=len(outbox.waiting))


class FolderWatcher:
    """The file writes under one folder. Armed when constructed; raises ``InvalidInput`` if there is no such folder."""

    def __init__(self, directory: Path, *, ignore: Sequence[Path] = ()) -> None:
        self._root = os.path.abspath(directory)
        if not os.path.isdir(self._root) or not os.access(self._root, os.R_OK | os.X_OK):
            raise InvalidInput(
                f"{str(directory)!r} is not a folder that can be read; name an existing one to watch", field="watch"
            )
        self._folders = folders_inside(self._root, ignore)
        if "." in self._folders:
            raise InvalidInput(
                f"{str(directory)!r} is the data folder itself; put the data folder elsewhere (--data)", field="watch"
            )
        self._armed: frozenset[str] = frozenset()
        self._polled = False
        self._notify = _notices([], poll=True)
        self._tree = scan(self._root, self._folders)
        self._look_at_s = 0.0
        self._look_again(rearm=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the watch; ``take`` may not be called any more."""
        self._notify.close()

    def take(self, stop: threading.Event, *, timeout_s: float | None = None) -> list[WatchedWrite]:
        """Wait for writes and return them, in the order of their paths, at most one for a path.

        Returns an empty list when ``stop`` is set (within 0.1 s), after ``timeout_s``, or when all of it was ignored.
        A file that came and went within one batch (an atomic save's temporary) is no write.
        """
        wait_s = self._look_at_s - time.monotonic()
        wait_s = wait_s if timeout_s is None else min(wait_s, timeout_s)
        try:
            answer = self._notify.watch(_DEBOUNCE_MS, _STEP_MS, max(1, round(wait_s * 1000)), stop)
        except WatchfilesRustInternalError as error:
            # Such a watch answers nothing else any more (measured: one name that is not UTF-8 is enough).
            _log.debug("watch_rearmed", folder=escape_path(self._root)[0], reason=str(error))
            return self._look_again(rearm=True)
        if answer == "stop":
            return []
        if answer == "signal":
            raise KeyboardInterrupt
        writes = self._writes_of({path for _, path in answer}) if isinstance(answer, set) else []
        if time.monotonic() >= self._look_at_s:
            writes = _merged(writes, self._look_again(rearm=False))
        return writes

    def _writes_of(self, paths: set[str]) -> list[WatchedWrite]:
        """Return the writes that notices about ``paths`` stand for, as the disk is now."""
        created: list[str] = []
        modified: list[str] = []
        deleted: list[tuple[str, Mark]] = []
        stale = False
        files = self._tree.files
        for path in map(self._relative, paths):
            found = mark_of(os.path.join(self._root, path))
            if path in self._tree.directories or path.rpartition("/")[2] == RULES_FILE:
                stale = True
            if self._tree.ignores.ignored(path, directory=found == "directory"):
                continue
            if found == "directory":
                stale = True
            elif found is not None:
                (modified if path in files else created).append(path)
                files[path] = found
            elif path in files:
                deleted.append((path, files.pop(path)))
        writes = named_writes(created, modified, deleted, files)
        return _merged(writes, self._look_again(rearm=True)) if stale else writes

    def _relative(self, path: str) -> str:
        return path[len(self._root.rstrip("/")) + 1 :]

    def _look_again(self, *, rearm: bool) -> list[WatchedWrite]:
        """Compare the tree with the last look, and watch the folders that it has now."""
        started_s = time.monotonic()
        try:
            new, settled = self._look(rearm)
        except OSError as error:
            _log.warning("watch_look_failed", folder=escape_path(self._root)[0], error=repr(error))
            self._notify.close()
            self._notify, self._armed = _notices([], poll=True), frozenset()
            self._look_at_s = started_s + _LOOK_EVERY_POLLED_S
            return []
        writes = writes_between(self._tree, new)
        if "" in self._tree.directories and "" not in new.directories:
            _log.warning("watch_folder_gone", folder=escape_path(self._root)[0])
        self._tree = new
        every_s = _LOOK_EVERY_POLLED_S if self._polled or "" not in new.directories else _LOOK_EVERY_S
        now_s = time.monotonic()
        self._look_at_s = now_s + max(every_s, (now_s - started_s) * _LOOK_SHARE) if settled else now_s
        return writes

    def _look(self, rearm: bool) -> tuple[Tree, bool]:
        """Return a look at the tree, and whether all its folders are watched.

        Armed first and looked at afterwards: what is written in between is seen by the look.
        """
        new = scan(self._root, self._folders)
        for tried in range(5):
            if tried:
                new = scan(self._root, self._folders)
            if new.directories == self._armed and not rearm:
                return new, True
            rearm = not self._arm(new.directories)
        return new, False

    def _arm(self, directories: frozenset[str]) -> bool:
        """Watch these folders; return False if one of them is gone by now. What cannot be watched is polled."""
        self._notify.close()
        self._armed = frozenset()
        paths = [os.path.join(self._root, folder).rstrip("/") or "/" for folder in sorted(directories)]
        utf8 = [path for path in paths if not _SURROGATE.search(path)]
        reason = "the names of some folders are not UTF-8" if len(utf8) < len(paths) else ""
        try:
            self._notify = _notices(utf8)
        except FileNotFoundError:
            return False
        except (OSError, WatchfilesRustInternalError) as error:  # no kernel watches left, for instance
            self._notify, reason = _notices([], poll=True), str(error)
        if reason and not self._polled:
            _log.warning("watch_polls", folder=escape_path(self._root)[0], every_s=_LOOK_EVERY_POLLED_S, reason=reason)
        self._armed, self._polled = directories, bool(reason)
        return True


class Outbox:
    """Writes on their way to a sink that may fail: none is lost, and memory stays bounded."""

    def __init__(self, sink: Sink) -> None:
        self.waiting: list[WatchedWrite] = []
        self._sink = sink
        self._failures = 0
        self._retry_at_s = 0.0

    def retry_in_s(self) -> float | None:
        """Return the seconds until the next offer, or None while nothing waits."""
        return max(0.0, self._retry_at_s - time.monotonic()) if self.waiting else None

    def add(self, writes: Sequence[WatchedWrite]) -> None:
        """Queue writes behind those that wait; too many are folded by path."""
        self.waiting += writes
        if len(self.waiting) > _MAX_WAITING:
            self.waiting = list({write.path: write for write in self.waiting}.values())
        if len(self.waiting) > _MAX_WAITING_PATHS:
            self.waiting = [WatchedWrite(".", Operation.MODIFIED)]

    def send(self) -> None:
        """Offer what waits, unless a failure is too recent."""
        while self.waiting and time.monotonic() >= self._retry_at_s:
            try:
                self._sink(self.waiting[:_SINK_BATCH])
            except Exception as error:  # noqa: BLE001 (whatever ails the sink, the writes must outlive it)
                self._failed(error)
            else:
                del self.waiting[:_SINK_BATCH]
                self._failures = 0

    def _failed(self, error: Exception) -> None:
        delay_s = min(_RETRY_MAX_S, _RETRY_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self._retry_at_s = time.monotonic() + delay_s
        said = str(error) if isinstance(error, OrchestratorError) else repr(error)
        _log.warning("watch_sink_failed", error=said, waiting=len(self.waiting), retry_in_s=delay_s)


def _notices(paths: list[str], *, poll: bool = False) -> RustNotify:
    return RustNotify(paths, False, poll, 300, False, True)


def _merged(first: list[WatchedWrite], later: list[WatchedWrite]) -> list[WatchedWrite]:
    merged = {write.path: write for write in first}
    for write in later:
        if write.op is not Operation.MODIFIED or write.path not in merged:
            merged[write.path] = write
    return sorted(merged.values(), key=lambda write: write.path)
