"""``orchestrator audit summary | storms | hot-files | failures``: questions over many, answered from the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.commands.read import restart_table
from orchestrator.cli.reading.database import reading
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json, parse_span
from orchestrator.cli.terminal.output import emit_json, facts, instant, say, show, table
from orchestrator.domain.durations import format_duration
from orchestrator.history.failures import FailureCounts, failures
from orchestrator.history.hot_files import hot_files
from orchestrator.history.storms import storms
from orchestrator.history.summary import Summary, summary
from orchestrator.history.views import failures_view, hot_files_view, restart_view, summary_view
from orchestrator.ports.inquiries import Percentiles, Scope
from orchestrator.ports.store import Reader

InWorkspace = Annotated[str | None, typer.Option("--workspace", help="Only this workspace.")]
InFleet = Annotated[str | None, typer.Option("--fleet", help="Only this fleet.")]
Since = Annotated[str | None, typer.Option(help="Then or later: RFC 3339, or 10m for 10 min ago.")]
Until = Annotated[str | None, typer.Option(help="Before: RFC 3339, or 10m for 10 min ago.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")]

_INCOMPLETE = "Only the newest were looked at: there are more in scope."


@contextmanager
def _asked(
    database_url: str | None,
    data: Path | None,
    workspace: str | None,
    fleet: str | None,
    span: tuple[str | None, str | None],
) -> Iterator[tuple[Reader, Scope]]:
    with reading(database_url, data) as store, store.read() as reader:
        since, until = parse_span(*span, reader.clock)
        yield reader, Scope(workspace=workspace, fleet=fleet, since=since, until=until)


def summary_command(
    *,
    workspace: InWorkspace = None,
    fleet: InFleet = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Say what coalescing did: restarts, writes covered, restarts avoided, waits, failures."""
    with _asked(database_url, data, workspace, fleet, (since, until)) as (reader, scope):
        found = summary(reader, scope)
    if as_json:
        emit_json(summary_view(scope, found))
        return
    show(facts(_summary_facts(found)))
    if not found.complete:
        say(_INCOMPLETE)


def storms_command(
    *,
    workspace: InWorkspace = None,
    fleet: InFleet = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List the restarts that answered for the most writes."""
    with _asked(database_url, data, workspace, fleet, (since, until)) as (reader, scope):
        found = storms(reader, scope, limit)
    if as_json:
        emit_json({"items": [restart_view(record) for record in found]})
        return
    show(restart_table([restart_view(record) for record in found]))


def hot_files_command(
    *,
    workspace: InWorkspace = None,
    fleet: InFleet = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List the files that are written most."""
    with _asked(database_url, data, workspace, fleet, (since, until)) as (reader, scope):
        found = hot_files(reader, scope, limit)
    if as_json:
        emit_json(hot_files_view(found))
        return
    rows = ((file.writes, file.workspace, file.path) for file in found.files)
    show(table(("WRITES", "WORKSPACE", "PATH"), rows) if found.files else "No write.")
    if not found.complete:
        say(_INCOMPLETE)


def failures_command(
    *,
    workspace: InWorkspace = None,
    fleet: InFleet = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Say how often cycles failed or were abandoned and restarts given up, and list the newest."""
    with _asked(database_url, data, workspace, fleet, (since, until)) as (reader, scope):
        found = failures(reader, scope, limit)
    view = failures_view(found)
    if as_json:
        emit_json(view)
        return
    show(facts(_failure_facts(found.counts)))
    if found.newest:
        names = ("type", "workspace", "restart", "kind", "message")
        rows = (
            (instant(event.recorded_at), *(item[name] for name in names))
            for event, item in zip(found.newest, view["items"], strict=True)
        )
        show(table(("AT (UTC)", "WHAT", "WORKSPACE", "RESTART", "KIND", "MESSAGE"), rows))
    if not found.counts.complete:
        say(_INCOMPLETE)


def _summary_facts(found: Summary) -> list[tuple[str, object]]:
    waited = found.oldest_write_waited
    started = f"{found.restarts_started} restart" + ("" if found.restarts_started == 1 else "s")
    return [
        ("restarts", f"{found.restarts}{_counted(found.by_state)}"),
        ("causes", _counted(found.by_cause).strip(" ()")),
        ("cycles", found.cycles),
        ("shadow", found.shadow or None),
        ("restarts avoided", f"{found.restarts_avoided} = {found.writes_covered} writes covered - {started}"),
        ("oldest write waited to its start", _told(waited.to_start_ms)),
        ("oldest write waited to its success", _told(waited.to_success_ms)),
        *_failure_facts(found.failures),
    ]


def _failure_facts(counts: FailureCounts) -> list[tuple[str, object]]:
    return [
        ("cycles failed", f"{sum(counts.failed.values())}{_counted(counts.failed)}"),
        ("cycles abandoned", f"{sum(counts.abandoned.values())}{_counted(counts.abandoned)}"),
        ("restarts given up", str(counts.gave_up)),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f" ({listed})" if listed else ""


def _told(found: Percentiles) -> str | None:
    values = {"p50": found.p50, "p90": found.p90, "p99": found.p99, "max": found.max}
    told = [f"{name} {format_duration(value)}" for name, value in values.items() if value is not None]
    return ", ".join(told) or None
