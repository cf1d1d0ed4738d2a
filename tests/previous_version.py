"""The product's code as it was before its newest migration, taken from this repository's own history."""

from __future__ import annotations

import io
import subprocess
import tarfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OF_0002 = "c157e9924070db7644e35de777bed7b1ec5d04c4"
"""The last commit whose newest migration is 0002: what ran in the world before states had their new shape."""

_PARTS = ("orchestrator", "workers", "migrations")


class NoHistory(Exception):
    """The text says why there is no older code here: no git, no history, or one that was cut short."""


def newest_migration() -> Path:
    """Return the file of the newest migration, relative to the project."""
    return max((ROOT / "migrations" / "versions").glob("*.py"), key=lambda path: path.name).relative_to(ROOT)


@cache
def previous_commit() -> str:
    """Return the commit before the one that added the newest migration. Raises ``NoHistory``."""
    from_merges_too = ("-m", "--first-parent")  # a migration may be written while branches are merged
    added = _git("log", *from_merges_too, "--diff-filter=A", "--format=%H", "-1", "--", str(newest_migration()))
    commit = added.decode().strip()
    if not commit:
        raise NoHistory(f"git knows no commit that added {newest_migration()}")
    return _git("rev-parse", "--verify", "--quiet", f"{commit}^").decode().strip()


def check_out_previous(folder: Path) -> Path:
    """Put that commit's packages into ``folder``, see ``check_out``. Raises ``NoHistory``."""
    return check_out(previous_commit(), folder)


def check_out(commit: str, folder: Path) -> Path:
    """Put a commit's packages into ``folder`` and return it: run them with ``folder`` as PYTHONPATH.

    Raises ``NoHistory``.
    """
    packed = _git("archive", "--format=tar", commit, *_PARTS)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _git(*words: str) -> bytes:
    try:
        ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        raise NoHistory("there is no git on the PATH") from None
    if ran.returncode != 0:
        raise NoHistory(f"git {' '.join(words[:1])} says: {ran.stderr.decode().strip() or 'no such commit'}")
    return ran.stdout
