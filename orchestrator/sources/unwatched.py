"""Folders that the kernel gives no notices of: a glance at them costs a third of a look, as nothing is listed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from orchestrator.sources.tree import CLOCK_STEP_NS, Mark

_Stamp = tuple[int, int, int]
_UNKNOWN: _Stamp = (0, 0, 0)


class Unwatched:
    """Remembers how such folders looked before they were listed: one that looks so still has the same names in it."""

    def __init__(self, root: str) -> None:
        self._prefix = root.rstrip("/") + "/"
        self._stamps: dict[str, _Stamp] = {}

    def note(self, folder: str) -> None:
        """Take a folder in; to be called before it is listed."""
        stamp = self._stamp(folder)
        fresh = stamp is None or time.time_ns() - max(stamp[1:]) < CLOCK_STEP_NS
        self._stamps[folder] = _UNKNOWN if stamp is None or fresh else stamp

    def discard(self, folder: str) -> None:
        """Forget a folder: there are notices of it."""
        self._stamps.pop(folder, None)

    def keep_only(self, folders: set[str]) -> None:
        """Forget all other folders."""
        for folder in self._stamps.keys() - folders:
            del self._stamps[folder]

    def differing(self, files: Mapping[str, Mark]) -> tuple[list[str], list[str]]:
        """Return the folders in which names have come or gone, and those of ``files`` there that differ."""
        folders = [folder for folder, stamp in self._stamps.items() if self._stamp(folder) != stamp]
        lstat, prefix, stamps = os.lstat, self._prefix, self._stamps
        paths = []
        for path, mark in files.items():
            if path.rpartition("/")[0] not in stamps:
                continue
            try:
                seen = lstat(prefix + path)
            except OSError:
                paths.append(path)
                continue
            if seen.st_ctime_ns != mark[3] or seen.st_ino != mark[0]:
                paths.append(path)
        return folders, paths

    def _stamp(self, folder: str) -> _Stamp | None:
        try:
            seen = os.stat(self._prefix + folder)
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns
