"""F20: hosts whose wall clocks are wrong, or are set while the product runs. Only the database's clock decides."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.chaos.production import ARGUMENTS, ChaosProduction
from tests.system.deployment import TICK_S
from tests.system.history import History
from tests.system.processes import OrchestratorProcess

HOUR_S = 3600
AHEAD_S = {"api": HOUR_S, "worker-1": HOUR_S, "worker-2": -HOUR_S, "beat": 0}
BUSY_S = 3.0
"""What a busy machine may add to a tick."""


@pytest.fixture
def wrong(chaos: ChaosProduction, tmp_path: Path) -> Iterator[ChaosProduction]:
    """Production, each process on a host of its own whose clock is wrong; the right ones come back afterwards."""
    for name, ahead_s in AHEAD_S.items():
        chaos.end(name)
        clock = tmp_path / name
        clock.write_text(str(ahead_s))
        chaos.processes[name] = OrchestratorProcess(
            name,
            (str(clock), ARGUMENTS[name]),
            env=chaos.environment(),
            log=chaos.folder / f"{name}-wrong-clock.log",
            program=(sys.executable, "-m", "tests.system.shifted_clock"),
        )
    chaos.await_serving()
    yield chaos
    for name in AHEAD_S:
        chaos.end(name)
    chaos.heal()


def set_clock(tmp_path: Path, name: str, ahead_s: float) -> None:
    """Step the clock of a running process, all at once: it reads whole numbers or nothing."""
    new = tmp_path / f"{name}.new"
    new.write_text(str(ahead_s))
    new.rename(tmp_path / name)


def check_in_time(production: ChaosProduction, history: History) -> None:
    """Everything was recorded by the database's clock, folded when due, and started at once."""
    assert abs(history.events[-1].recorded_at - production.now()) < timedelta(minutes=1)
    for queued, start in zip(history.queued, history.starts, strict=True):
        assert start.started_at - queued.due_at < timedelta(seconds=TICK_S + BUSY_S)


def test_clocks_that_differ_by_hours_or_are_set_meanwhile_change_nothing(
    wrong: ChaosProduction, tmp_path: Path
) -> None:
    workspaces = [wrong.register(delay="300ms") for _ in range(6)]  # more than one worker has slots
    for workspace in workspaces:
        wrong.write(workspace, "a", "b")
    histories = [wrong.settled(workspace, restarts=1) for workspace in workspaces]
    for history in histories:
        check_in_time(wrong, history)
    assert len({history.starts[0].worker for history in histories}) == 2, "a worker takes no messages"

    for name in ("beat", "worker-1", "worker-2"):
        set_clock(tmp_path, name, AHEAD_S[name] - HOUR_S)
    for workspace in workspaces:
        wrong.write(workspace, "c")
    for workspace in workspaces:
        check_in_time(wrong, wrong.settled(workspace, restarts=2))
