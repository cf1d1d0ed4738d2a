"""The kernel's notices of changes in folders (inotify), folder by folder.

Not recursively: that would follow symbolic links out of the folder and spend kernel watches on ``node_modules``.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from inotify_simple import Event, INotify, flags

_WRITTEN: Final = flags.MODIFY | flags.CREATE
"""What shows that a file has other content, whatever its times say: a file may be put in another's place by a copy
that keeps size and times, and on some file systems even its inode."""

_IN_FOLDER: Final = (
    flags.MODIFY | flags.ATTRIB | flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO | flags.CREATE | flags.DELETE
    | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
)  # fmt: skip
_OUTSIDE: Final = (
    flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO | flags.CREATE | flags.DELETE | flags.ONLYDIR | flags.MASK_ADD
)

# Small numbers: the server's window does the coalescing, this only gathers one save's notices.
_DEBOUNCE_S: Final = 0.05
_STEP_S: Final = 0.02
_STOP_SEEN_S: Final = 0.1


class Noticed(NamedTuple):
    """One batch of notices. Paths are relative to the watched folder."""

    paths: dict[str, bool]
    """Files that something happened to, and whether other content was written to them."""
    folders: set[str]
    """Folders that came, went or changed, and all below them."""
    everything: bool
    """Notices were lost, or something happened outside that bears on all."""


class NoWatchLeft(Exception):
    """The kernel gives no more watches (or, at the start, no more instances) to this user."""


class Notices:
    """The notices of any number of folders below ``root``. Raises ``NoWatchLeft`` if there is not one instance left."""

    def __init__(self, root: str) -> None:
        self._root = root
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise NoWatchLeft(os.strerror(error.errno or 0)) from None
        self._folder_of: dict[int, str] = {}
        self._number_of: dict[str, int] = {}
        self._outside: dict[int, frozenset[str]] = {}

    def close(self) -> None:
        """Give all watches back."""
        self._inotify.close()

    def arm(self, folder: str) -> None:
        """Watch a folder, by its path. Again costs little, and finds another folder that is there by now.

        Raises ``NoWatchLeft``, or ``OSError`` if there is no such folder.
        """
        mask = _IN_FOLDER | flags.DONT_FOLLOW if folder else _IN_FOLDER  # the root may be a link
        number = self._add(os.path.join(self._root, folder), mask)
        before = self._number_of.get(folder)
        if before is not None and before != number:
            self._drop(folder, before)
        self._folder_of[number], self._number_of[folder] = folder, number

    def has(self, folder: str) -> bool:
        """Say whether a folder has its watch."""
        return folder in self._number_of

    def arm_outside(self, folder: str, names: Iterable[str]) -> bool:
        """Watch for some names in a folder outside of the root; return False if there is no such folder."""
        try:
            number = self._add(folder, _OUTSIDE)
        except OSError:
            return False
        self._outside[number] = self._outside.get(number, frozenset()) | frozenset(names)
        return True

    def keep_only(self, folders: set[str]) -> None:
        """Give back the watches of all other folders."""
        for folder in [folder for folder in self._number_of if folder not in folders]:
            self._drop(folder, self._number_of[folder])

    def read(self, stop: threading.Event, timeout_s: float) -> Noticed | None:
        """Wait for notices; None when ``stop`` is set (seen within 0.1 s) or after ``timeout_s``."""
        until_s = time.monotonic() + timeout_s
        while not stop.is_set():
            left_s = until_s - time.monotonic()
            events = self._inotify.read(timeout=max(0, round(min(left_s, _STOP_SEEN_S) * 1000)))
            if events:
                return self._gathered(events, stop)
            if left_s <= 0:
                return None
        return None

    def _gathered(self, events: list[Event], stop: threading.Event) -> Noticed:
        """Return these notices and those that follow at once."""
        noticed = Noticed({}, set(), False)
        until_s = time.monotonic() + _DEBOUNCE_S
        while events:
            for event in events:
                noticed = self._take(noticed, event.wd, event.mask, event.name)
            if stop.is_set() or time.monotonic() >= until_s:
                break
            events = self._inotify.read(timeout=round(_STEP_S * 1000))
        return noticed

    def _take(self, noticed: Noticed, number: int, mask: int, name: str) -> Noticed:
        if mask & flags.Q_OVERFLOW or name in self._outside.get(number, ()):
            return noticed._replace(everything=True)
        folder = self._folder_of.get(number)
        if folder is None:
            return noticed
        if mask & flags.IGNORED:
            self._forget(folder, number)
        elif not name:
            if mask & (flags.DELETE_SELF | flags.MOVE_SELF) and not folder:
                return noticed._replace(everything=True)
        else:
            path = f"{folder}/{name}" if folder else name
            if mask & flags.ISDIR:
                noticed.folders.add(path)
            else:
                noticed.paths[path] = noticed.paths.get(path, False) or bool(mask & _WRITTEN)
        return noticed

    def _add(self, path: str, mask: int) -> int:
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoWatchLeft(os.strerror(errno.ENOSPC)) from None
            raise

    def _drop(self, folder: str, number: int) -> None:
        if self._folder_of.get(number) == folder:
            try:
                self._inotify.rm_watch(number)
            except OSError as error:
                if error.errno != errno.EINVAL:  # it went with its folder
                    raise
        self._forget(folder, number)

    def _forget(self, folder: str, number: int) -> None:
        if self._folder_of.get(number) == folder:
            del self._folder_of[number]
        if self._number_of.get(folder) == number:
            del self._number_of[folder]
