"""``orchestrator replay``: does the log say what the tables say?"""

from __future__ import annotations

import typer

from orchestrator.cli.reading.database import reading
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json
from orchestrator.cli.terminal.output import emit_json, say
from orchestrator.cli.terminal.progress import Bar
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.explain import counted
from orchestrator.history.replay import ReplayReport, replay

_FOUND_WRONG = 1


def replay_command(*, as_json: Json = False, database_url: DatabaseUrl = None, data: Data = None) -> None:
    """Fold the log and compare the workspaces, restarts and policies with it, byte for byte.

    Exits with 1 if anything differs.
    """
    with reading(database_url, data) as store, Bar("replaying") as bar:
        report = replay(store, bar.move)
    if as_json:
        emit_json(to_plain(report))
    else:
        _tell(report)
    if report.differences:
        raise typer.Exit(_FOUND_WRONG)


def _tell(report: ReplayReport) -> None:
    if report.broken is not None:
        say(f"After {report.events} events: {report.broken}. Nothing was folded after that, and the rows not compared.")
        return
    events, workspaces = counted(report.events, "event"), counted(report.workspaces, "workspace")
    folded = f"{events} fold into {workspaces}, {counted(report.restarts, 'restart')}"
    found = len(report.differences)
    rows = "row differs" if found == 1 else "rows differ"
    verdict = f"but {found} stored {rows}" if found else "as they are stored"
    say(f"{folded} and {report.policies} policies, {verdict}.")
    for difference in report.differences:
        say(f"{difference.table} {difference.id}")
        say(f"  stored    {difference.stored or 'no such row'}")
        say(f"  replayed  {difference.replayed or 'no such row'}")
