from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workers.process_keeper import Backoff
from workers.process_supervisor import ProcessSupervisor


@dataclass
class Exits:
    """Every child that ended by itself: (workspace, exit code, signal, pause in ms)."""

    seen: list[tuple[str, int | None, int | None, int]] = field(default_factory=list)

    def __call__(self, workspace: str, exit_code: int | None, signum: int | None, respawn_after_ms: int) -> None:
        self.seen.append((workspace, exit_code, signum, respawn_after_ms))


@pytest.fixture
def exits() -> Exits:
    return Exits()


@pytest.fixture
def supervisor(tmp_path: Path, exits: Exits) -> Iterator[ProcessSupervisor]:
    made = ProcessSupervisor(tmp_path / "process", exits, backoff=Backoff(first_s=0.05, longest_s=0.4))
    yield made
    made.close(grace_s=0.2)
