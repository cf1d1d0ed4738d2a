"""A disk of 400 MB in memory that can be filled to its last byte, where this user may mount one."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

_SIZE = "400m"
_BLOCK = 4096


class NoSmallDisk(Exception):
    """The text says why there is none."""


class SmallDisk:
    """A mounted tmpfs. ``fill`` takes all space that is left, ``free`` gives it back."""

    SETTINGS: ClassVar[tuple[str, ...]] = ("max_wal_size=64MB", "min_wal_size=32MB")
    """What a PostgreSQL on it needs, so that its own log leaves room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no block free."""
        with self._ballast.open("ab") as file:
            while free := os.statvfs(self.folder).f_bavail:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free * _BLOCK)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return  # somebody else took the last of it

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount one at ``folder``. Raises ``NoSmallDisk`` where that is not allowed."""
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=755", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise NoSmallDisk("there is no program `mount`") from None
    if mounted.returncode != 0:
        raise NoSmallDisk(f"mounting a tmpfs is refused: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
