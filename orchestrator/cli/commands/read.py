"""The commands that read: ``workspaces``, ``restarts``, ``why``, ``tail``; from a database or a server's API."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from orchestrator.cli.reading.choose import chosen_source
from orchestrator.cli.reading.source import PAGE, Source, View, WantedEvents, WantedRestarts, WantedWorkspaces
from orchestrator.cli.terminal import stories
from orchestrator.cli.terminal.nearest import did_you_mean
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json, ReadUrl, parse_moment, parse_pair, parse_span
from orchestrator.cli.terminal.output import emit_json, emit_line, facts, instant, say, show, table
from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.domain.events import Cause
from orchestrator.domain.paths import escape_path
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase
from orchestrator.errors import InvalidInput, NotFound

_POLL_S = 0.5


def workspaces(  # noqa: PLR0913 (each is an option)
    workspace: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this one.")] = None,
    *,
    state: Annotated[Phase | None, typer.Option(help="Only those in this state.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Only those of this fleet.")] = None,
    label: Annotated[str | None, typer.Option(metavar="KEY=VALUE", help="Only those with this label.")] = None,
    at: Annotated[str | None, typer.Option(help="As they were then: RFC 3339, or 10m for 10 min ago.")] = None,
    as_json: Json = False,
    url: ReadUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List workspaces: state, what waits, when it is due. A removed one only where it is named."""
    pair = parse_pair(label, name="--label") if label is not None else None
    with chosen_source(url, database_url, data) as source:
        moment = None if at is None else parse_moment(at, source.clock, name="--at")
        wanted = WantedWorkspaces(state=state, fleet=fleet, label=pair, at=moment)
        found = list(_workspaces(source, workspace, wanted))
    if as_json:
        emit_json({"items": found})
        return
    columns = ("WORKSPACE", "STATE", "FLEET", "WRITES", "REQUESTS", "DUE (UTC)", "LAST START (UTC)")
    show(table(columns, map(_workspace_cells, found)) if found else "No workspace.")
    for row in found:
        if row["crash_loop"] is not None:
            say(stories.crash_loop(row["id"], row["crash_loop"]))


def _workspaces(source: Source, workspace: str | None, wanted: WantedWorkspaces) -> Iterable[View]:
    if workspace is None:
        return source.workspaces(wanted)
    return [one for one in [source.workspace(workspace, wanted.at)] if wanted.admits(one)]


def _workspace_cells(row: View) -> tuple[Any, ...]:
    due_at = row["due_at"]
    if due_at is None and row["restart"] is not None and row["running_cycle"] is None and row["hold"] is None:
        due_at = row["restart"]["ready_at"]
    return (
        row["id"],
        row["state"],
        row["fleet"],
        row["pending_writes"],
        row["pending_requests"],
        instant(due_at),
        instant(row["last_cycle"]["started_at"]) if row["last_cycle"] else None,
    )


def restarts(  # noqa: PLR0913 (each is an option)
    *,
    workspace: Annotated[str | None, typer.Option(help="Only those of this workspace.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Only those of this fleet.")] = None,
    since: Annotated[str | None, typer.Option(help="Queued then or later: RFC 3339, or 10m for 10 min ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Queued before: RFC 3339, or 10m for 10 min ago.")] = None,
    state: Annotated[RestartState | None, typer.Option(help="Only those in this state.")] = None,
    cause: Annotated[Cause | None, typer.Option(help="Only those with this cause.")] = None,
    path: Annotated[str | None, typer.Option(help="Only those that cover a write of this path.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    as_json: Json = False,
    url: ReadUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List restarts, newest first."""
    with chosen_source(url, database_url, data) as source:
        first, last = parse_span(since, until, source.clock)
        wanted = WantedRestarts(
            workspace=workspace,
            fleet=fleet,
            since=first,
            until=last,
            state=state,
            cause=cause,
            path=None if path is None else escape_path(path)[0],
        )
        found = source.restarts(wanted, limit)
    if as_json:
        emit_json({"items": found})
        return
    show(restart_table(found))


def restart_table(found: Sequence[View]) -> RenderableType:
    """Return restarts as people read them."""
    columns = ("RESTART", "WORKSPACE", "STATE", "CAUSE", "WRITES", "FILES", "ATTEMPTS", "QUEUED (UTC)", "ENDED (UTC)")
    return table(columns, (_restart_cells(record) for record in found)) if found else "No restart."


def _restart_cells(record: View) -> tuple[Any, ...]:
    names = ("cause", "writes", "files", "attempts")
    return (
        record["id"],
        record["workspace"],
        f"{record['state']} (shadow)" if record["shadow"] else record["state"],
        *(record[name] for name in names),
        instant(record["queued_at"]),
        instant(record["ended_at"]),
    )


def why_command(
    subject: Annotated[str, typer.Argument(metavar="RESTART|WRITE", help="A restart (rst_...) or a write (evt_...).")],
    *,
    as_json: Json = False,
    url: ReadUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Say why a restart happened, or what became of a write or request."""
    if not subject.startswith(("rst_", "evt_")):
        raise NotFound(
            f"{subject!r} is neither a restart (rst_...) nor a write (evt_...); `orchestrator restarts`"
            " and `orchestrator tail` list them"
        )
    with chosen_source(url, database_url, data) as source:
        if subject.startswith("rst_"):
            story = source.why(subject)
            if as_json:
                emit_json(story)
            else:
                show(*stories.restart_story(story))
            return
        fate = source.fate(subject)
        story_of_restart = source.why(fate["restart"]) if fate["restart"] is not None and not as_json else None
    if as_json:
        emit_json(fate)
        return
    say(fate["explanation"])
    show(facts(stories.fate_facts(fate)))
    if story_of_restart is not None:
        say(f"\n{story_of_restart['id']}: {story_of_restart['explanation']}")


def tail(  # noqa: PLR0913 (each is an option)
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is recorded from now on.")] = False,
    workspace: Annotated[str | None, typer.Option(help="Only events of this workspace.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")] = None,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="POSITION", help="All events after this position.")
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=100_000, help="The last so many events.")] = 20,
    as_json: Json = False,
    url: ReadUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Print events of the log, one a line; with --json as the export has them."""
    wanted = WantedEvents(workspace=workspace, types=_types(kind or []))
    with chosen_source(url, database_url, data) as source:
        if after is None:
            after = _print_newest(source, lines, wanted, as_json=as_json)
            if not follow:
                return
        wait = threading.Event()
        while True:
            after = _print_from(source, after, wanted, as_json=as_json)
            if not follow:
                return
            wait.wait(_POLL_S)


def _types(kind: list[str]) -> list[str]:
    for name in kind:
        if name not in EVENT_TYPES:
            meant = did_you_mean(name, EVENT_TYPES)
            raise InvalidInput(f"--type: there is no event type {name!r}.{meant} Use {', '.join(sorted(EVENT_TYPES))}")
    return kind


def _print_newest(source: Source, lines: int, wanted: WantedEvents, *, as_json: bool) -> int:
    """Print the last so many events; return the position after which all others come."""
    if lines == 0:
        newest = source.newest(WantedEvents(), 1)
    else:
        newest = source.newest(wanted, lines)
        _print(newest, as_json=as_json)
    return newest[-1]["position"] if newest else 0


def _print_from(source: Source, after: int, wanted: WantedEvents, *, as_json: bool) -> int:
    """Print what came after a position; return the last position printed. No transaction is open while printing."""
    while True:
        page = source.events(wanted, after)
        _print(page, as_json=as_json)
        after = page[-1]["position"] if page else after
        if len(page) < PAGE:
            return after


def _print(events: Iterable[View], *, as_json: bool) -> None:
    for event in events:
        if as_json:
            emit_line(event)
        else:
            say(stories.event_line(event))
