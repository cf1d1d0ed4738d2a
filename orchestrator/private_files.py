"""Folders and files that nobody but their owner may look into: what the product makes holds paths, targets, proofs."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import IO

from orchestrator.errors import InvalidInput

_OTHERS = 0o077


def private_folder(folder: Path, *, named_by: str) -> None:
    """Have a folder of this user's that is closed to others: make it (0700), or close one that is ours.

    Raises ``InvalidInput`` for one that is somebody else's, or that all may write to: such a one is not changed.
    ``named_by`` is the option or setting that names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        link, found = folder.lstat(), folder.stat()  # a link of somebody else's may point to what is ours
        if found.st_uid != os.geteuid() or link.st_uid not in (0, os.geteuid()):
            raise InvalidInput(f"{named_by}: {folder} belongs to another user; name a folder of your own")
        if found.st_mode & (stat.S_ISVTX | stat.S_IWOTH):
            raise InvalidInput(
                f"{named_by}: everybody may write to {folder} (mode {found.st_mode & 0o7777:o}); name another one,"
                " or close it with chmod 700"
            )
        if found.st_mode & _OTHERS:
            folder.chmod(0o700)
    except OSError as error:
        raise InvalidInput(f"{named_by}: cannot use {folder}: {error.strerror}") from None


def open_private(path: Path) -> IO[str]:
    """Open a text file to be written from its beginning, closed to others (0600). Raises ``OSError``.

    That is ``PermissionError`` for a file or a link that is somebody else's: they would read it, or choose where it is
    written to. What is no file (a terminal, a pipe) stays as it is.
    """
    opened = _opened_if_ours(path)
    file = open(opened, "w", encoding="utf-8", newline="")  # noqa: SIM115 (the caller closes it)
    try:
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode):
            if found.st_uid != os.geteuid():
                raise _of_another_user(path)
            os.fchmod(file.fileno(), 0o600)
            os.ftruncate(file.fileno(), 0)  # not before: it may be somebody's that is not to be lost
    except OSError:
        file.close()
        raise
    return file


def _opened_if_ours(path: Path) -> int:
    """Open a file to be written, through a link only where that is ours or root's."""
    flags = os.O_WRONLY | os.O_CREAT
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    if path.lstat().st_uid not in (0, os.geteuid()):
        raise _of_another_user(path)
    return os.open(path, flags, 0o600)


def _of_another_user(path: Path) -> PermissionError:
    return PermissionError(errno.EPERM, "it belongs to another user; name a file that is not there yet", str(path))


def close_database_file(path: Path) -> None:
    """Make a SQLite file before SQLite does (0644 that would be), or close one of ours and what lies beside it.

    An existing one is never opened here: closing it would give up the locks that SQLite has on it in this process.
    Raises ``OSError``, also where its folder is missing.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        for name in (path, *(path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm", "journal"))):
            close_file(name)


def close_file(path: Path) -> None:
    """Take others' rights from a file of ours; one that is missing or somebody else's stays as it is."""
    try:
        found = path.stat()
        if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
            path.chmod(0o600)
    except FileNotFoundError:
        return


def lock_folder(folder: Path, *, named_by: str) -> IO[str]:
    """Take a folder for this process, until the file that is returned is closed.

    Raises ``InvalidInput`` if another process has it.
    """
    try:
        opened = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        lock = open(opened, "r+", encoding="utf-8")  # noqa: SIM115 (the caller closes it)
        close_file(folder / "lock")
    except OSError as error:
        raise InvalidInput(f"{named_by}: cannot use {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise InvalidInput(
            f"another `orchestrator` process (pid {holder}) uses {folder}, and SQLite is for one; stop it, or choose"
            f" another with {named_by}"
        ) from None
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
