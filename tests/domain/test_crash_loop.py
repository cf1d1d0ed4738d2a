from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.crash_loop import row_of_deaths
from orchestrator.domain.events import ProcessExited, Recorded

SETTLE = timedelta(seconds=30)


def at(seconds: float) -> datetime:
    return datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(seconds=seconds)


def died(second: float, pause_s: float = 1) -> Recorded:
    data = ProcessExited(exit_code=1, signal=None, respawn_after_ms=round(pause_s * 1000))
    return Recorded(
        position=round(second * 10) + 1,
        id=f"evt_{second}",
        workspace="ws",
        version=None,
        schema=1,
        recorded_at=at(second),
        occurred_at=None,
        actor="orchestrator",
        source=None,
        source_id=None,
        correlation_id=None,
        causation_id=None,
        data=data,
    )


THREE = [died(2, 1), died(5, 2), died(9, 4)]


@pytest.mark.parametrize(
    ("exits", "started", "now", "deaths"),
    [
        (THREE[:2], 0, 10, 0),
        (THREE, 0, 10, 3),
        (THREE, None, 10, 3),
        ([*THREE, died(15, 8)], 0, 16, 4),
        (THREE, 0, 42.9, 3),  # the child that was started at 13 has not lived settle yet
        (THREE, 0, 43, 0),
        (THREE, 6, 10, 0),  # a restart began another row
        ([died(2, 1), died(40, 1), died(43, 2), died(47, 4)], 0, 50, 0),  # the second of them had lived long
        ([died(2, 1), died(40, 1), died(43, 2), died(47, 4), died(52, 8)], 0, 53, 3),
        ([died(2, 1), died(5, 0), died(9, 4)], 0, 10, 0),  # one was replaced by a restart under way
    ],
)
def test_a_loop_is_three_deaths_in_a_row_until_a_child_lives(
    exits: list[Recorded], started: float | None, now: float, deaths: int
) -> None:
    row = row_of_deaths(exits, started_at=None if started is None else at(started), settle=SETTLE, now=at(now))
    assert len(row) == deaths
    assert row == exits[len(exits) - deaths :] or not row


def test_without_settle_nothing_is_a_loop() -> None:
    assert row_of_deaths(THREE, started_at=None, settle=timedelta(0), now=at(9)) == []
