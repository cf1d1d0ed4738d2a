"""Options that several commands share, so that they are called and explained the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.domain.durations import parse_duration
from orchestrator.domain.encoding import parse_instant
from orchestrator.errors import InvalidInput

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="Database to read; else ORCHESTRATOR_DATABASE_URL, else --data. A password is best left to the variable.",
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Data folder of `orchestrator up` [ORCHESTRATOR_DATA].")
]
Ready = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="COMMAND is ready when: tcp:[HOST:]PORT, http://URL, command:LINE, or none."),
]
Grace = Annotated[str | None, typer.Option(metavar="DURATION", help="From COMMAND's stop signal to its KILL; 10s.")]
Env = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="In COMMAND's environment; may be repeated.")]
StopSignal = Annotated[str | None, typer.Option(metavar="SIGNAL", help="What ends COMMAND; TERM.")]
ReloadSignal = Annotated[
    str | None, typer.Option(metavar="SIGNAL", help="What path rules with action reload send it, such as HUP.")
]
Stdin = Annotated[
    str | None, typer.Option(metavar="null|inherit", help="What COMMAND reads: nothing, or what up would.")
]
Once = Annotated[
    bool | None,
    typer.Option("--once/--no-once", help="COMMAND is to end, as a build does: run it again per burst."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include", metavar="PATTERN", help="Watch this though a rule ignores it, such as .env; may be repeated."
    ),
]
Url = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="ORCHESTRATOR_URL", help="The API to act on.", show_default=True)
]
ReadUrl = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Read from this server's API [ORCHESTRATOR_URL]; without one from the database."
    ),
]
DEFAULT_URL = "http://127.0.0.1:8321"


def parse_moment(text: str, clock: Callable[[], datetime], *, name: str) -> datetime:
    """Return an instant given as RFC 3339, or as a duration before now (``10m``). Raises ``InvalidInput``."""
    try:
        return parse_instant(text)
    except ValueError:
        pass
    try:
        before = timedelta(milliseconds=parse_duration(text, field=name))
    except InvalidInput:
        raise InvalidInput(
            f"{name}: {text!r} is no instant; write 2026-11-23T12:00:00Z, or 10m for ten minutes ago", field=name
        ) from None
    return clock() - before


def parse_span(
    since: str | None, until: str | None, clock: Callable[[], datetime]
) -> tuple[datetime | None, datetime | None]:
    """Return both ends of a span. Raises ``InvalidInput``, also where nothing can lie between them."""
    first = None if since is None else parse_moment(since, clock, name="--since")
    last = None if until is None else parse_moment(until, clock, name="--until")
    if first is not None and last is not None and first > last:
        raise InvalidInput(f"--since: {since} is after --until, {until}", field="since")
    return first, last


def parse_pair(text: str, *, name: str) -> tuple[str, str]:
    """Return both sides of ``key=value``. Raises ``InvalidInput``."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidInput(f"{name}: {text!r} is not KEY=VALUE", field=name)
    return key, value
