"""Two things measured in turns, so that noise hits both alike, and their ratio beside its bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from statistics import median
from typing import Any

Work = Callable[[], object]


class LogIsNotGood(Exception):
    """The log that is measured on is not what this version would have written."""


class Bar(Enum):
    """Which way a ratio is good. Speeds: how fast ours is in units of the other's; costs: how long ours takes."""

    SPEED_AT_LEAST = ">="
    COST_AT_MOST = "<="


@dataclass(frozen=True, kw_only=True)
class Run:
    """On what to measure, and how often; ``rounds`` for short work, ``passes`` for work that takes seconds.

    ``clock``: this machine's, or this process's own time, which is steadier on a busy machine but leaves a
    database server's work out.
    """

    url: str
    database: str
    rounds: int
    passes: int
    clock: Callable[[], float] = time.perf_counter

    def in_turns(
        self, ours: Sequence[Work], others: Sequence[Work], *, rounds: int, before: Work | None = None
    ) -> tuple[float, float]:
        """Run pairs of ours and other, ``rounds`` times each after one to warm up; return both medians in seconds.

        ``before``: what is done, and not measured, before each of ours.
        """
        ours_s: list[float] = []
        others_s: list[float] = []
        for number in range(rounds + 1):
            for our, other in zip(ours, others, strict=True):
                took_other = self._took_s(other)
                if before is not None:
                    before()
                took_ours = self._took_s(our)
                if number:
                    ours_s.append(took_ours)
                    others_s.append(took_other)
        return median(ours_s), median(others_s)

    def _took_s(self, work: Work) -> float:
        began = self.clock()
        work()
        return self.clock() - began


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One line of the table. ``ours_s`` and ``other_s`` are medians in seconds; ``note`` says what else was seen."""

    what: str
    database: str
    ours_s: float
    against: str
    other_s: float
    bar: Bar
    limit: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Return a cost as ours over the other, a speed as the other's time over ours."""
        return self.ours_s / self.other_s if self.bar is Bar.COST_AT_MOST else self.other_s / self.ours_s

    @property
    def met(self) -> bool:
        """True if the bar is met."""
        return self.ratio <= self.limit if self.bar is Bar.COST_AT_MOST else self.ratio >= self.limit

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"bar": self.bar.value, "ratio": round(self.ratio, 3), "met": self.met}


def table(ratios: Iterable[Ratio]) -> str:
    """Return the ratios as people read them."""
    heads = ("what", "database", "ours", "other", "against", "ratio", "bar", "", "note")
    lines = [
        (
            item.what,
            item.database,
            _duration(item.ours_s),
            _duration(item.other_s),
            item.against,
            f"{item.ratio:.2f}",
            f"{item.bar.value} {item.limit:g}",
            "met" if item.met else "MISSED",
            item.note,
        )
        for item in ratios
    ]
    widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (heads, rule, *lines)
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3f} ms"
