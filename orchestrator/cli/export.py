"""``orchestrator audit``: what an auditor takes away."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from orchestrator.audit.export import export
from orchestrator.cli.options import Data, DatabaseUrl, Json
from orchestrator.cli.output import emit, emit_json, note, terminal
from orchestrator.cli.read import reading
from orchestrator.errors import InvalidInput

_BAR_AFTER_S = 2.0

app = typer.Typer(rich_markup_mode=None)


@app.command("export")
def export_command(
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else stdout.")] = None,
    after: Annotated[int, typer.Option(min=0, metavar="POSITION", help="Only events after this position.")] = 0,
    workspace: Annotated[str | None, typer.Option(help="Only events of this workspace.")] = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Write the log as NDJSON, one event a line in position order.

    The events are JSON either way; with --json and --output a summary is printed as JSON too.
    """
    with reading(database_url, data) as store, _sink(output) as write, _Bar() as bar:
        count = export(store, write, after, workspace, bar.move)
    if output is None:
        return
    if as_json:
        emit_json({"events": count, "file": str(output)})
    else:
        note(f"{count} events written to {output}")


@contextmanager
def _sink(output: Path | None) -> Iterator[Callable[[str], object]]:
    if output is None:
        yield emit
        return
    try:
        with output.open("w", encoding="utf-8", newline="\n") as file:
            yield file.write
    except OSError as error:
        raise InvalidInput(f"--output: cannot write {output}: {error.strerror}", field="output") from None


class _Bar:
    """A progress bar on stderr, if that is a terminal, once the export has taken 2 s."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        console = terminal(stderr=True)
        columns = (TextColumn("exporting"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def move(self, position: int, last: int) -> None:
        """Take the position that is exported and the last one that will be."""
        if self._progress is None or time.monotonic() - self._started_s < _BAR_AFTER_S:
            return
        if not self._progress.task_ids:
            self._progress.add_task("export", total=last)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=position, total=last)
