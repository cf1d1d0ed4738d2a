from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.executors.world import processes_with
from workers.supervision.keeper import Backoff
from workers.supervision.supervisor import ProcessSupervisor


@dataclass
class Exits:
    """Every child that ended by itself: (workspace, exit code, signal, pause in ms)."""

    seen: list[tuple[str, int | None, int | None, int]] = field(default_factory=list)

    def __call__(self, workspace: str, exit_code: int | None, signum: int | None, respawn_after_ms: int) -> None:
        self.seen.append((workspace, exit_code, signum, respawn_after_ms))


@pytest.fixture
def tag() -> Iterator[str]:
    """Every process that a test starts carries this; at the test's end none may be left."""
    value = f"{os.getpid()}-{time.monotonic_ns()}"
    yield value
    left = processes_with("TAG", value)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def exits() -> Exits:
    return Exits()


@pytest.fixture
def supervisor(tmp_path: Path, exits: Exits, tag: str) -> Iterator[ProcessSupervisor]:
    """``tag`` is an argument so that it is checked after the supervisor has closed."""
    made = ProcessSupervisor(tmp_path / "process", exits, backoff=Backoff(first_s=0.05, longest_s=0.4))
    yield made
    made.close(grace_s=0.2)
