"""The commands that read the database: ``workspaces``, ``restarts``, ``why``, ``tail``. They need no running server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from orchestrator.cli.terminal import stories
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json, parse_moment, parse_pair, parse_span
from orchestrator.cli.terminal.output import emit_json, emit_line, facts, instant, say, show, table
from orchestrator.domain.encoding import format_instant
from orchestrator.domain.events import EVENT_TYPES, Cause, Recorded
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import Phase
from orchestrator.errors import InvalidInput, NotFound
from orchestrator.history.crash_loops import crash_loops
from orchestrator.history.fate import fate_of
from orchestrator.history.past import Moment, moment_at, workspace_at, workspaces_at
from orchestrator.history.views import event_view, fate_view, restart_view, story_view, workspace_row, workspace_then
from orchestrator.history.why import why
from orchestrator.ports.store import EventFilter, EventStore, Reader, RestartFilter
from orchestrator.ports.workspaces import StoredWorkspace, WorkspaceFilter
from orchestrator.settings import load_settings
from orchestrator.storage.opening import open_store

_PAGE = 500
_POLL_S = 0.5


@contextmanager
def reading(database_url: str | None, data: Path | None) -> Iterator[EventStore]:
    """Open the database that the options, the environment or the defaults name.

    Raises ``InvalidInput`` if there is none: reading never makes one; ``MigrationsPending`` and
    ``StorageUnavailable`` as the store says.
    """
    url = load_settings(database_url=database_url, data=data).url
    store = open_store(url)
    if url.startswith("sqlite"):
        _check_file(url)
    try:
        store.check(reads_only=True)
        yield store
    finally:
        store.close()


def _check_file(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_file():
        raise InvalidInput(
            f"there is no database {path}; start `orchestrator up`, or name another one by --data or --database-url"
        )


def workspaces(
    workspace: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this one.")] = None,
    *,
    state: Annotated[Phase | None, typer.Option(help="Only those in this state.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Only those of this fleet.")] = None,
    label: Annotated[str | None, typer.Option(metavar="KEY=VALUE", help="Only those with this label.")] = None,
    at: Annotated[str | None, typer.Option(help="As they were then: RFC 3339, or 10m for 10 min ago.")] = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List workspaces: state, what waits, when it is due. A removed one only where it is named."""
    pair = parse_pair(label, name="--label") if label is not None else None
    wanted = WorkspaceFilter(phase=state, fleet=fleet, label=pair, limit=_PAGE, removed=workspace is not None)
    with reading(database_url, data) as store, store.read() as reader:
        moment = None if at is None else moment_at(reader, parse_moment(at, reader.clock(), name="--at"))
        policies = moment.policies if moment else reader.policies()
        if workspace is None:
            found = list(_workspaces(reader, wanted, moment))
        else:
            found = [one for one in [_workspace(reader, workspace, moment)] if wanted.admits(one.state)]
        loops = crash_loops(reader, found, policies, at=moment.at if moment else None)
    if as_json:
        rows = [workspace_then(one, moment, loops) if moment else workspace_row(one, policies, loops) for one in found]
        emit_json({"items": rows})
        return
    columns = ("WORKSPACE", "STATE", "FLEET", "WRITES", "REQUESTS", "DUE (UTC)", "LAST START (UTC)")
    show(table(columns, (_workspace_cells(stored) for stored in found)) if found else "No workspace.")
    for name, loop in loops.items():
        say(f"{name} is crash looping since {instant(loop.began_at)}: {loop.said}")


def _workspace(reader: Reader, workspace: str, moment: Moment | None) -> StoredWorkspace:
    found = workspace_at(reader, workspace, moment.at)[0] if moment else reader.workspace(workspace)
    if found is None:
        then = f"did not exist at {format_instant(moment.at)}" if moment else "is not registered"
        raise NotFound(f"workspace {workspace!r} {then}; `orchestrator workspaces` lists those that are")
    return found


def _workspaces(reader: Reader, wanted: WorkspaceFilter, moment: Moment | None) -> Iterator[StoredWorkspace]:
    while True:
        if moment is not None:
            then = workspaces_at(reader, wanted, moment)
            page, after = list(then.items), then.next_after
        else:
            page = reader.workspaces(wanted)
            after = page[-1].state.workspace if len(page) == wanted.limit else None
        yield from page
        if after is None:
            return
        wanted = replace(wanted, after=after)


def _workspace_cells(stored: StoredWorkspace) -> tuple[Any, ...]:
    state = stored.state
    due_at = stored.due_at or state.ready_at
    fleet = state.registration.fleet if state.registration else None
    return (
        state.workspace,
        state.phase.value,
        fleet,
        state.pending_writes,
        state.pending_requests,
        instant(due_at),
        instant(state.last_start_at),
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
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List restarts, newest first."""
    with reading(database_url, data) as store, store.read() as reader:
        first, last = parse_span(since, until, now=reader.clock())
        found = _restarts(
            reader,
            limit,
            workspace=workspace,
            fleet=fleet,
            since=first,
            until=last,
            state=state,
            cause=cause,
            path=path,
        )
    if as_json:
        emit_json({"items": [restart_view(record) for record in found]})
        return
    show(restart_table(found))


def _restarts(reader: Reader, limit: int, **wanted: Any) -> list[RestartProjection]:
    found: list[RestartProjection] = []
    before: int | None = None
    while len(found) < limit:
        size = min(_PAGE, limit - len(found))
        page = reader.restarts(RestartFilter(before=before, limit=size, **wanted))
        found += page
        if len(page) < size:
            break
        before = page[-1].queued_position
    return found


def restart_table(found: Sequence[RestartProjection]) -> RenderableType:
    """Return restarts as people read them."""
    columns = ("RESTART", "WORKSPACE", "STATE", "CAUSE", "WRITES", "FILES", "ATTEMPTS", "QUEUED (UTC)", "ENDED (UTC)")
    return table(columns, (_restart_cells(record) for record in found)) if found else "No restart."


def _restart_cells(record: RestartProjection) -> tuple[Any, ...]:
    state = f"{record.state.value} (shadow)" if record.shadow else record.state.value
    return (
        record.id,
        record.workspace,
        state,
        record.cause.value,
        record.writes,
        record.files,
        record.attempts,
        instant(record.queued_at),
        instant(record.ended_at),
    )


def why_command(
    subject: Annotated[str, typer.Argument(metavar="RESTART|WRITE", help="A restart (rst_...) or a write (evt_...).")],
    *,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Say why a restart happened, or what became of a write or request."""
    if not subject.startswith(("rst_", "evt_")):
        raise NotFound(
            f"{subject!r} is neither a restart (rst_...) nor a write (evt_...); `orchestrator restarts` lists"
        )
    with reading(database_url, data) as store, store.read() as reader:
        if subject.startswith("rst_"):
            story = why(reader, subject)
            if as_json:
                emit_json(story_view(story))
            else:
                show(*stories.restart_story(story))
            return
        fate = fate_of(reader, subject)
        story_of_restart = why(reader, fate.restart) if fate.restart is not None else None
    if as_json:
        emit_json(fate_view(fate))
        return
    say(fate.explanation)
    show(facts(stories.fate_facts(fate)))
    if story_of_restart is not None:
        say(f"\n{story_of_restart.restart.id}: {story_of_restart.explanation}")


def tail(
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is recorded from now on.")] = False,
    workspace: Annotated[str | None, typer.Option(help="Only events of this workspace.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")] = None,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="POSITION", help="All events after this position.")
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=100_000, help="The last so many events.")] = 20,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Print events of the log, one a line; with --json as the export has them."""
    types = _types(kind or [])
    with reading(database_url, data) as store:
        with store.read() as reader:
            last = reader.last_position()
            start = after if after is not None else _start_of_last(reader, lines, last, workspace, types)
        wait = threading.Event()
        while True:
            start = _print_from(store, start, workspace, types, as_json=as_json)
            if not follow:
                return
            wait.wait(_POLL_S)


def _types(kind: list[str]) -> list[str]:
    for name in kind:
        if name not in EVENT_TYPES:
            raise InvalidInput(f"--type: there is no event type {name!r}; use {', '.join(sorted(EVENT_TYPES))}")
    return kind


def _start_of_last(reader: Reader, lines: int, last: int, workspace: str | None, types: list[str]) -> int:
    """Return the position after which the last ``lines`` events are; looks back in steps that double."""
    if lines == 0:
        return last
    step = lines
    while True:
        start = max(0, last - step)
        found: list[int] = []
        for event in _events(reader, start, workspace, types, to_position=last):
            found.append(event.position)
        if len(found) >= lines or start == 0:
            return found[-lines] - 1 if len(found) >= lines else start
        step *= 8


def _events(
    reader: Reader, after: int, workspace: str | None, types: list[str], *, to_position: int | None = None
) -> Iterator[Recorded]:
    while True:
        wanted = EventFilter(after=after, to_position=to_position, workspace=workspace, types=types, limit=_PAGE)
        page = reader.events(wanted)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].position


def _print_from(store: EventStore, after: int, workspace: str | None, types: list[str], *, as_json: bool) -> int:
    """Print what came after a position; return the last position printed. No transaction is open while printing."""
    while True:
        with store.read() as reader:
            page = reader.events(EventFilter(after=after, workspace=workspace, types=types, limit=_PAGE))
        for event in page:
            if as_json:
                emit_line(event_view(event))
            else:
                say(stories.event_line(event))
        after = page[-1].position if page else after
        if len(page) < _PAGE:
            return after
