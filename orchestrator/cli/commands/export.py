"""``orchestrator audit``: what an auditor takes away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.reading.database import reading
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json, parse_span
from orchestrator.cli.terminal.output import emit, emit_json, note
from orchestrator.cli.terminal.progress import Bar
from orchestrator.errors import InvalidInput
from orchestrator.history.export import Export, Subject, exported
from orchestrator.history.export_formats import Format
from orchestrator.ports.inquiries import Scope
from orchestrator.private_files import open_private

app = typer.Typer(rich_markup_mode=None)


@app.command("export")
def export_command(  # noqa: PLR0913 (each is an option)
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else stdout.")] = None,
    of: Annotated[Subject, typer.Option(help="What to export.")] = Subject.EVENTS,
    as_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.NDJSON,
    after: Annotated[int, typer.Option(min=0, metavar="POSITION", help="Only what comes after this position.")] = 0,
    workspace: Annotated[str | None, typer.Option(help="Only this workspace.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Only this fleet.")] = None,
    since: Annotated[str | None, typer.Option(help="Then or later: RFC 3339, or 10m for 10 min ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Before: RFC 3339, or 10m for 10 min ago.")] = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Write the log, one event a line in position order, or the restarts in the order they were queued.

    NDJSON is the evidence; CSV is for spreadsheets: a cell that one would run as a formula begins with an apostrophe.
    With --json and --output a summary is printed as JSON too.
    """
    count = 0
    with reading(database_url, data) as store, _sink(output) as write, Bar("exporting") as bar:
        with store.read() as reader:
            first, last = parse_span(since, until, reader.clock)
        scope = Scope(workspace=workspace, fleet=fleet, since=first, until=last)
        for piece, rows in exported(store, Export(of=of, format=as_format, after=after, scope=scope), bar.move):
            write(piece.decode())
            count += rows
    if output is None:
        return
    if as_json:
        emit_json({of.value: count, "file": str(output)})
    else:
        note(f"{count} {of.value} written to {output}")


@contextmanager
def _sink(output: Path | None) -> Iterator[Callable[[str], object]]:
    if output is None:
        yield emit
        return
    try:
        with open_private(output) as file:
            yield file.write
    except OSError as error:
        raise InvalidInput(f"--output: cannot write {output}: {error.strerror}", field="output") from None
