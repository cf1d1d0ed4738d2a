"""The commands that run until a signal: ``up``, ``api``, ``worker``, ``beat``; and ``migrate``.

What they run is imported when they are: Celery and the HTTP server take half a second, which ``why`` need not pay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.reading.database import reading
from orchestrator.cli.terminal.options import (
    Data,
    Env,
    Grace,
    Include,
    Once,
    Ready,
    ReloadSignal,
    Stdin,
    StopSignal,
)
from orchestrator.cli.terminal.output import fail, say
from orchestrator.errors import InvalidInput, MigrationsPending
from orchestrator.settings import Settings, load_settings
from orchestrator.sources.links import as_named


def up(  # noqa: PLR0913 (each is an option of the command line)
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="With --watch: what is restarted.")
    ] = None,
    *,
    data: Data = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the API; 0 takes a free one.")] = None,
    watch: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Restart COMMAND when files here change.")
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="The id of DIR's workspace; else its base name.")] = None,
    include: Include = None,
    quiet: Annotated[
        str | None, typer.Option(metavar="DURATION", help="No restart until this long after a write.")
    ] = None,
    max_wait: Annotated[str | None, typer.Option(metavar="DURATION", help="But no later than this.")] = None,
    min_interval: Annotated[str | None, typer.Option(metavar="DURATION", help="Least time between restarts.")] = None,
    ready: Ready = None,
    grace: Grace = None,
    env: Env = None,
    stop_signal: StopSignal = None,
    reload_signal: ReloadSignal = None,
    stdin: Stdin = None,
    once: Once = None,
) -> None:
    """Run API, worker and beat in one process on SQLite; with --watch, supervise a command too."""
    from orchestrator.cli.commands.program_options import program_options
    from orchestrator.cli.commands.up import run_up
    from orchestrator.cli.commands.watched_program import Watched
    from orchestrator.cli.first_process import reap_if_first

    options = program_options(
        ready=ready,
        grace=grace,
        env=env or [],
        stop_signal=stop_signal,
        reload_signal=reload_signal,
        stdin=stdin,
        once=once,
    )
    if len(watch or []) > 1:
        raise InvalidInput(
            "--watch: an `up` watches one folder; name the one above them all, or report the others beside it: "
            "orchestrator watch OTHER --workspace ID"
        )
    reap_if_first()
    numbers = {"quiet": quiet, "max_wait": max_wait, "min_interval": min_interval}
    given = {name: value for name, value in numbers.items() if value is not None}
    settings = _on_port(load_settings(data=data, policy=given), port, data, given)
    if not watch and (command or workspace is not None or options):
        raise InvalidInput("COMMAND, --workspace and what is said of COMMAND need --watch DIR: whose writes restart it")
    if watch and not command:
        raise InvalidInput("--watch needs the command to restart: orchestrator up --watch DIR -- COMMAND ...")
    if not watch and include:
        raise InvalidInput("--include needs --watch DIR: it names what is watched though a rule ignores it")
    watched = (
        Watched(
            directory=as_named(watch[0]),
            command=command or (),
            workspace=workspace,
            include=include or (),
            options=options,
        )
        if watch
        else None
    )
    raise typer.Exit(run_up(settings, watched))


def _on_port(settings: Settings, port: int | None, data: Path | None, policy: dict[str, str]) -> Settings:
    if port is None:
        return settings
    host = settings.bind.rpartition(":")[0]
    return load_settings(data=data, policy=policy, bind=f"{host}:{port}")


def api() -> None:
    """Serve the API."""
    from orchestrator.cli.serve import run_api

    raise typer.Exit(run_api(load_settings()))


def worker() -> None:
    """Take ticks and wake-ups, and carry out restarts."""
    from orchestrator.cli.first_process import reap_if_first
    from orchestrator.cli.worker_parent import require_broker, require_shared_database, supervise_worker
    from orchestrator.logs import configure_logs

    reap_if_first()
    settings = load_settings()
    require_broker(settings)
    require_shared_database(settings)
    configure_logs(form=settings.log_format, level=settings.log_level, lasting=True)
    found = supervise_worker(settings)
    if isinstance(found, int):
        raise typer.Exit(found)
    from orchestrator.cli.serve import run_worker  # here, in the child, and not in its parent: it imports Celery

    raise typer.Exit(run_worker(settings, found))


def beat() -> None:
    """Fire the ticks."""
    from orchestrator.cli.serve import run_beat

    raise typer.Exit(run_beat(load_settings()))


def migrate(
    *,
    app_role: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="PostgreSQL role that api, worker and beat connect as [ORCHESTRATOR_APP_ROLE]."
        ),
    ] = None,
    reader_role: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="PostgreSQL role that may only read [ORCHESTRATOR_READER_ROLE]."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing: exit 0 if this version serves the database, else 1."),
    ] = False,
) -> None:
    """Bring the database to this version's schema, and the roles to their privileges."""
    if check:
        raise typer.Exit(_check_migrated())
    from orchestrator.cli.serve import run_migrate

    raise typer.Exit(run_migrate(load_settings(app_role=app_role, reader_role=reader_role)))


def _check_migrated() -> int:
    try:
        with reading(None, None):
            say("This version serves the database as it is.")
    except MigrationsPending as error:
        fail(str(error))
        return 1
    return 0
