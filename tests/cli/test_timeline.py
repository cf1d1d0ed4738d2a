"""The timeline that the demo draws: each lane in its place, and no wider than the terminal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.cli.terminal.timeline import draw
from orchestrator.history.why import why
from orchestrator.storage.opening import open_store
from tests.history import START, History, TestClock


@pytest.mark.parametrize("width", [65, 80, 200])
def test_lanes_stand_under_each_other(sqlite_url: str, width: int) -> None:
    clock = TestClock()
    store = open_store(sqlite_url, clock)
    history = History(store, clock)
    history.register(quiet="4s")
    for second in range(4):
        history.at(second)
        history.write(f"{second}.py")
    history.at(7)
    restart = history.queued()
    history.start()
    history.at(10)
    history.succeed()
    with store.read() as reader:
        story = why(reader, restart)
    store.close()

    writes = [START + timedelta(seconds=second) for second in range(4)]
    axis, ticks, window, cycle, stamps, *_ = (line.plain for line in draw(story, writes, width=width, ascii_only=True))

    assert max(map(len, (axis, ticks, window, cycle, stamps))) <= width
    assert axis.split()[0::4] == ["0.0s", "10.0s"]
    assert (ticks.count("|"), ticks.endswith("  4 writes")) == (4, True)
    assert window.endswith("  quiet after 7 s")
    assert cycle.endswith("  3 s")
    assert ticks.index("|") == window.index("-")
    assert cycle.index("#") == stamps.index("^") == window.rindex("-")
