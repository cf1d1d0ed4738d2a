"""The command line (CONTRACT section 6). Exit codes: 0 good, 1 found wrong, 2 used wrongly, 130 interrupted."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator import __version__
from orchestrator.cli.commands import (
    act,
    demo,
    doctor,
    export,
    keys,
    path_verdict,
    policy,
    processes,
    proofs,
    read,
    replay,
    reports,
    seal_keys,
    verify,
    watch,
)
from orchestrator.cli.terminal.nearest import with_nearest
from orchestrator.cli.terminal.output import emit, fail, note
from orchestrator.errors import OrchestratorError
from orchestrator.logs import configure_logs, flush_logs

__all__ = ["app", "main"]

_USED_WRONGLY = 2
_INTERRUPTED = 130

app = typer.Typer(
    name="orchestrator",
    help="Restart a workspace once, at the right moment, after a burst of file writes, and say why.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command("up")(processes.up)
app.command("api")(processes.api)
app.command("worker")(processes.worker)
app.command("beat")(processes.beat)
app.command("migrate")(processes.migrate)
app.command("write")(act.write)
app.command("restart")(act.restart)
app.command("hold")(act.hold)
app.command("release")(act.release)
app.command("cancel")(act.cancel)
app.command("register")(act.register)
app.command("remove")(act.remove)
app.command("watch")(watch.watch)
app.command("workspaces")(read.workspaces)
app.command("restarts")(read.restarts)
app.command("why")(read.why_command)
app.command("tail")(read.tail)
app.command("replay")(replay.replay_command)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
export.app.command("summary")(reports.summary_command)
export.app.command("storms")(reports.storms_command)
export.app.command("hot-files")(reports.hot_files_command)
export.app.command("failures")(reports.failures_command)
policy.app.command("test")(path_verdict.verdict_command)
app.add_typer(policy.app, name="policy", help="Show, change, check or try the numbers that decide when.")
export.app.command("checkpoint")(proofs.checkpoint_command)
export.app.command("evidence")(proofs.evidence_command)
export.app.add_typer(seal_keys.app, name="keys", help="Make, replace or show the keys that sign checkpoints.")
app.add_typer(keys.app, name="keys", help="Who may call the API: make, list, replace and revoke keys.")
earlier_seal_app = typer.Typer(rich_markup_mode=None)
earlier_seal_app.registered_commands.extend(seal_keys.app.registered_commands)
keys.app.add_typer(earlier_seal_app, name="seal", help="Now `orchestrator audit keys`.")
export.app.command("verify")(verify.verify_command)
app.add_typer(export.app, name="audit", help="What an auditor takes away.")


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Restart a workspace once, at the right moment, after a burst of file writes, and say why."""
    if version:
        emit(f"restart-orchestrator {__version__}\n")
        raise typer.Exit
    _help_without_command(context)
    configure_logs(level="warning")


@policy.app.callback(invoke_without_command=True)
def start_policy(context: typer.Context) -> None:
    """Show, change, check or try the numbers that decide when."""
    _help_without_command(context)


@export.app.callback(invoke_without_command=True)
def start_audit(context: typer.Context) -> None:
    """What an auditor takes away."""
    _help_without_command(context)


@seal_keys.app.callback(invoke_without_command=True)
def start_seal_keys(context: typer.Context) -> None:
    """Make, replace or show the keys that sign checkpoints."""
    _help_without_command(context)


@earlier_seal_app.callback(invoke_without_command=True)
def start_earlier_seal_keys(context: typer.Context) -> None:
    """Now `orchestrator audit keys`: make, replace or show the keys that sign checkpoints."""
    note("orchestrator: `keys seal` is `orchestrator audit keys` now; the old words still work")
    _help_without_command(context)


@keys.app.callback(invoke_without_command=True)
def start_keys(context: typer.Context) -> None:
    """Who may call the API: make, list, replace and revoke keys."""
    _help_without_command(context)


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        note(context.get_help())
        raise typer.Exit(_USED_WRONGLY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Every error made on purpose is one line on stderr."""
    gc.freeze()  # what was imported lives as long as the process: the collector need not look at it again
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path may hold what the terminal's encoding lacks
    try:
        try:
            given = None if arguments is None else list(arguments)
            code = app(args=given, prog_name="orchestrator", standalone_mode=False)
        finally:
            flush_logs()  # what was logged comes before what is printed of an error
    except OrchestratorError as error:
        fail(str(error))
        return _USED_WRONGLY
    except typer.TyperException as error:
        fail(f"{with_nearest(error.format_message())} (orchestrator --help says more)")
        return _USED_WRONGLY
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    return code if isinstance(code, int) else 0
