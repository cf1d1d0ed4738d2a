"""Of what a run's figures are: the commit that is checked out, and the day."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def commit() -> str:
    """Return what git says is checked out; empty without git."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    try:
        ran = subprocess.run(git, cwd=_ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return ran.stdout.strip()


def today() -> str:
    """Return the day in UTC, as in 2026-11-23."""
    return datetime.now(UTC).date().isoformat()
