"""What an agent has delivered, kept on disk: how each watched file looked when its last write was taken.

At its next start the agent compares: what was written while it was away, or was never delivered, looks otherwise.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.errors import InvalidInput
from orchestrator.sources.git_rules import warn_once
from orchestrator.sources.outbox import ALL_CHANGED
from orchestrator.sources.tree import Mark, WatchedWrite

_TABLE = (
    "CREATE TABLE IF NOT EXISTS marks (path BLOB PRIMARY KEY, inode INTEGER, size INTEGER, modified_ns INTEGER)"
    " WITHOUT ROWID"
)
_ALIVE = "CREATE TABLE IF NOT EXISTS begun (at TEXT DEFAULT CURRENT_TIMESTAMP)"
_SET = "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)"
_UNSET = "DELETE FROM marks WHERE path = ?"


def marks_file(data: Path, *names: str) -> Path:
    """Return the file for one agent: the same names (server, workspace, folder), the same file."""
    digest = hashlib.sha256(b"\0".join(os.fsencode(name) for name in names)).hexdigest()[:16]
    return data / "watch" / f"{digest}.db"


class KeptMarks:
    """Marks in an SQLite file that one process has at a time. Used by the thread that made it."""

    def __init__(self, file: Path) -> None:
        """Open or make the file. Raises ``InvalidInput`` if another process has it, ``OSError`` if none can be made."""
        for folder in (file.parent.parent, file.parent):  # `mode` is that of the last folder alone
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._file = file
        self._database = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(_TABLE)
            self._database.execute(_ALIVE)
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise InvalidInput(
                f"{file} cannot be used ({error}): another agent watches this folder for the same workspace; end that"
                " one, or remove the file if there is none (what was written meanwhile is then not reported)"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def load(self) -> dict[str, Mark] | None:
        """Return the marks; None at the first use of the file."""
        if self._database.execute("SELECT 1 FROM begun").fetchone() is None:
            return None
        rows = self._database.execute("SELECT path, inode, size, modified_ns FROM marks")
        return {os.fsdecode(path): Mark(inode, size, modified_ns, 0) for path, inode, size, modified_ns in rows}

    def delivered(self, writes: Sequence[WatchedWrite], files: Mapping[str, Mark]) -> None:
        """Note that these writes were taken. ``files`` is all that is watched, for the write that stands for all."""
        if any(write.path == ALL_CHANGED for write in writes):
            self.replace(files)
            return
        self._store({write.path: write.mark for write in writes})

    def replace(self, files: Mapping[str, Mark]) -> None:
        """Keep the marks of exactly these files."""
        before = self.load()
        known = before or {}
        differing: dict[str, Mark | None] = {
            path: mark for path, mark in files.items() if path not in known or not known[path].same_content(mark)
        }
        self._store(differing | dict.fromkeys(known.keys() - files.keys()), begins=before is None)

    def _store(self, marks: Mapping[str, Mark | None], *, begins: bool = False) -> None:
        """Store, or say once that it cannot be: the next start then reports what was taken again."""
        seen = [(os.fsencode(path), *mark[:3]) for path, mark in marks.items() if mark is not None]
        gone = [(os.fsencode(path),) for path, mark in marks.items() if mark is None]
        try:
            with self._database:  # commits, or rolls back
                self._database.execute("BEGIN")
                self._database.executemany(_SET, seen)
                self._database.executemany(_UNSET, gone)
                if begins:
                    self._database.execute("INSERT INTO begun DEFAULT VALUES")
        except sqlite3.Error as error:
            warn_once("watch_marks_not_kept", str(self._file), str(error))
