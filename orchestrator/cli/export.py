"""``orchestrator audit``: what an auditor takes away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.audit.export import export
from orchestrator.cli.options import Data, DatabaseUrl, Json
from orchestrator.cli.output import emit, emit_json, note
from orchestrator.cli.progress import Bar
from orchestrator.cli.read import reading
from orchestrator.errors import InvalidInput

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
    with reading(database_url, data) as store, _sink(output) as write, Bar("exporting") as bar:
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
