"""The simulated executor's own ledger: what was done to the outside, whatever the log says."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Act:
    """One line of the ledger."""

    workspace: str
    cycle: str
    fence: int


def acts_in(ledger: Path, workspace: str) -> list[Act]:
    """The acts on one workspace, in the order in which they were done."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    entries = [json.loads(line) for line in lines]
    acts = [Act(entry["workspace"], entry["cycle"], entry["fence"]) for entry in entries]
    return [act for act in acts if act.workspace == workspace]


@contextmanager
def nobody_writes(ledger: Path) -> Iterator[None]:
    """Keep the ledger's lock for a moment: a process that is frozen in it holds it against everybody."""
    with ledger.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
