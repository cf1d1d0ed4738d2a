"""A progress bar on stderr for what takes longer than 2 s, if that is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from orchestrator.cli.terminal.output import terminal

_BAR_AFTER_S = 2.0


class Bar:
    """Begins to show once the work has taken 2 s."""

    def __init__(self, doing: str) -> None:
        self._started_s = time.monotonic()
        columns = (TextColumn(doing), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn())
        console = terminal(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def move(self, position: int, last: int) -> None:
        """Take the position that is reached and the last one that will be."""
        if self._progress is None or time.monotonic() - self._started_s < _BAR_AFTER_S:
            return
        if not self._progress.task_ids:
            self._progress.add_task("", total=last)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=position, total=last)
