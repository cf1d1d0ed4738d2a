"""The timeline of one restart, drawn in lanes: writes as ticks, the window as a band, cycles as bars, their stamps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from orchestrator.cli.terminal.output import instant
from orchestrator.domain.explain import counted, length
from orchestrator.history.restart_story import RestartStory

_NAME = 9
_BESIDE = 36
"""Columns that a lane's name and label take beside it."""

_NARROWEST, _WIDEST = 20, 60


class Scale:
    """Maps instants of a span to columns."""

    def __init__(self, start: datetime, end: datetime, columns: int) -> None:
        self._start, self.columns = start, columns
        self.seconds = max(0.001, (end - start).total_seconds())

    def column(self, at: datetime) -> int:
        """Return the column of an instant; outside of the span the nearest one."""
        share = (at - self._start).total_seconds() / self.seconds
        return min(self.columns - 1, max(0, int(share * self.columns)))


def draw(story: RestartStory, writes: Sequence[datetime], *, width: int, ascii_only: bool = False) -> list[Text]:
    """Return the lines of a restart's timeline, at most ``width`` columns where that is 65 or more.

    ``writes`` are the instants of the writes it answers for.
    """
    tick, band, bar, mark = ("|", "-", "#", "^") if ascii_only else ("╷", "▒", "█", "▲")
    start = min([story.window.opened_at, *writes])
    ends = [cycle.ended_at or cycle.started_at for cycle in story.cycles]
    end = max([story.window.queued_at, *ends, *writes])
    scale = Scale(start, end, min(_WIDEST, max(_NARROWEST, width - _BESIDE)))
    window = [(story.window.opened_at, story.window.due_at)]
    cycles = [(cycle.started_at, cycle.ended_at or cycle.started_at) for cycle in story.cycles]
    took = ", ".join(length(cycle.duration_ms) for cycle in story.cycles if cycle.duration_ms is not None)
    closed = f"{story.cause.value} after {length(_ms(*window[0]))}"
    lines = [
        _axis(scale),
        _lane("writes", _points(scale, writes, tick), "yellow", counted(len(writes), "write")),
        _lane("window", _spans(scale, window, band), "cyan", closed),
        _lane("cycle", _spans(scale, cycles, bar), "green", took or "running"),
        _lane("stamps", _points(scale, [cycle.started_at for cycle in story.cycles], mark), "green", ""),
    ]
    lines += [
        Text(f"{'':>{_NAME}}  attempt {cycle.attempt}, fence {cycle.fence}: started {instant(cycle.started_at)} UTC")
        for cycle in story.cycles
    ]
    return lines


def _axis(scale: Scale) -> Text:
    row = [" "] * (scale.columns + 8)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        column = int(share * scale.columns)
        label = f"{scale.seconds * share:.1f}s"
        row[column : column + len(label)] = label
    return Text(f"{'':>{_NAME}}  {''.join(row).rstrip()}", style="dim")


def _lane(name: str, row: str, style: str, label: str) -> Text:
    return Text.assemble((f"{name:>{_NAME}}", "bold"), "  ", (row, style), f"  {label}")


def _points(scale: Scale, at: Sequence[datetime], char: str) -> str:
    columns = {scale.column(each) for each in at}
    return "".join(char if column in columns else " " for column in range(scale.columns))


def _spans(scale: Scale, spans: Sequence[tuple[datetime, datetime]], char: str) -> str:
    row = [" "] * scale.columns
    for since, until in spans:
        for column in range(scale.column(since), scale.column(until) + 1):
            row[column] = char
    return "".join(row)


def _ms(since: datetime, until: datetime) -> int:
    return round((until - since).total_seconds() * 1000)
