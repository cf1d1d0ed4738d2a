"""Damaging a workspace's row as no code of ours would, and repairing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager


@contextmanager
def damaged(sqlite_url: str, workspace: str) -> Iterator[None]:
    """Make the workspace's state unreadable inside the block."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as file:
        query = "SELECT folded_state FROM workspaces WHERE id = ?"
        (state,) = file.execute(query, (workspace,)).fetchone()
        change = "UPDATE workspaces SET folded_state = ? WHERE id = ?"
        file.execute(change, ('{"workspace": 1}', workspace))
        yield
        file.execute(change, (state, workspace))
