"""Where the tests keep their files: in memory, where there is room for them.

A commit of the product waits for the disk, and so does every database that a test makes from a template. No test cuts
the power, so a disk proves nothing that memory does not, and a machine whose disk is busy made the suite wait for
minutes. What measures (`./dev bench`) and what breaks servers for long (`./dev chaos`) stays on the disk.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 (the folders made inside it are ours alone)
_ROOM = 3 << 30
"""Bytes: what two processes of tests with their servers took, three times over. A container has 64 MB by default."""


def keep_files_in_memory() -> None:
    """Have this process, and those that it starts, make temporary folders in memory; not where TMPDIR says where."""
    if "TMPDIR" not in os.environ and _has_room(_MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def _has_room(folder: Path) -> bool:
    """Say whether programs may be run from ``folder`` by any user, and files be kept there."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= _ROOM and not found.f_flag & os.ST_NOEXEC
