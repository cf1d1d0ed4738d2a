"""What a command prints: tables and sentences for people, JSON for programs, one line for an error.

Colour only on a terminal and not with ``NO_COLOR``; a reader that goes away ends the command quietly;
what came from outside is shown without control characters, so that a path cannot drive the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.domain.encoding import parse_instant

_WIDTH_OF_A_PIPE = 4_000
"""Rows that a program reads are never wrapped or cut."""


def emit(text: str) -> None:
    """Write to stdout at once. A closed pipe ends the command with exit code 0: its reader has seen enough."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again when the interpreter closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def emit_json(value: Any) -> None:
    """Print one JSON document: indented on a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    emit(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def emit_line(value: Any) -> None:
    """Print one line of NDJSON."""
    emit(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def show(*parts: RenderableType) -> None:
    """Print something that rich renders."""
    console = terminal()
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=not isinstance(part, Table))
    emit(captured.get())


def say(text: str) -> None:
    """Print a line of plain text that may hold words from outside."""
    show(Text(printable(text)))


def note(text: str) -> None:
    """Tell a person what is going on, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def fail(message: str) -> None:
    """Print an error as one line on stderr."""
    note(f"orchestrator: error: {' '.join(message.split())}")


def terminal(*, stderr: bool = False) -> Console:
    """Return rich's console for stdout or stderr; without colours unless it is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=is_terminal,
        no_color=True if not is_terminal or os.environ.get("NO_COLOR") else None,
        width=None if is_terminal else _WIDTH_OF_A_PIPE,
        highlight=False,
        markup=False,
        emoji=False,
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a table without lines; cells are plain text, None is a dash."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable("-" if cell is None or cell == "" else str(cell))) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Return name and value, a pair a line; pairs without a value are left out."""
    made = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            made.add_row(Text(name), Text(printable(str(value))))
    return made


def printable(text: str) -> str:
    """Return ``text`` with control characters and other unprintable ones as escapes; line feeds stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def instant(told: datetime | str | None) -> str | None:
    """Return day and time in UTC to the millisecond; text is an instant as answers have it."""
    if told is None:
        return None
    at = parse_instant(told) if isinstance(told, str) else told
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
