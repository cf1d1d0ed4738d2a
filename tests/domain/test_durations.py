"""Durations as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.durations import LONGEST_MS, format_duration, parse_duration
from orchestrator.errors import InvalidInput


@given(st.integers(0, LONGEST_MS))
def test_every_duration_comes_back_from_its_spelling(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@given(st.integers(0, LONGEST_MS))
def test_whole_seconds_may_be_numbers(ms: int) -> None:
    assert parse_duration(ms // 1000) == ms // 1000 * 1000


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        *(("15s", 15_000), ("1m30s", 90_000), ("500ms", 500), ("1h", 3_600_000), ("2d", 172_800_000), ("0s", 0)),
        *(("1.5s", 1_500), ("0.25m", 15_000), ("15", 15_000), ("1.5", 1_500), (" 15s ", 15_000), ("30d", LONGEST_MS)),
        *((15, 15_000), (0, 0), (1.5, 1_500), (0.001, 1), (1e2, 100_000)),
    ],
)
def test_what_is_written_is_what_is_meant(written: str | float, ms: int) -> None:
    assert parse_duration(written) == ms


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "s", "15 s", "15x", "s15", "15s!", "-15s", "+15s", "1e3s", "1_000s", "inf", "nan", "1..5s", ".5s"),
        *("0.5ms", "0.0001s", "31d", "999999999999999999999999h", "1" * 41 + "s", "１５s", "١٥"),  # noqa: RUF001
        *(True, False, -1, -0.5, 0.0001, float("inf"), float("nan"), 1e300, LONGEST_MS, 2_592_000.001),
    ],
)
def test_anything_else_is_refused_by_name(written: str | float) -> None:
    with pytest.raises(InvalidInput, match=r"^policy\.quiet: ") as refused:
        parse_duration(written, field="policy.quiet")
    assert refused.value.field == "policy.quiet"


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (999, "999ms"), (1_000, "1s"), (90_061_001, "1d1h1m1s1ms"), (60_000, "1m")]
)
def test_the_shortest_spelling(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@given(st.text(max_size=12) | st.floats() | st.integers())
def test_any_text_or_number_is_a_duration_or_refused(written: Any) -> None:
    try:
        ms = parse_duration(written)
    except InvalidInput:
        return
    assert 0 <= ms <= LONGEST_MS
