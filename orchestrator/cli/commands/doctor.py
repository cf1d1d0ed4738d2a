"""``orchestrator doctor``: looks at an installation and says what to mend."""

from __future__ import annotations

from dataclasses import asdict

import typer

from orchestrator.cli.terminal.options import Data, Json
from orchestrator.cli.terminal.output import emit_json, say

_FOUND_WRONG = 1


def doctor(*, data: Data = None, as_json: Json = False) -> None:
    """Check settings, files, seal key, broker, database, clock, beat and workers; change nothing.

    Exits with 1 if something is wrong; a warning alone is no such thing.
    """
    from orchestrator.cli.examination import Finding, examine  # here: it imports Celery and the API

    found = list(examine(data))
    is_wrong = any(checked.finding is Finding.WRONG for checked in found)
    if as_json:
        emit_json({"good": not is_wrong, "checks": [asdict(checked) for checked in found]})
    else:
        for checked in found:
            say(f"{checked.finding.value:<8} {checked.name:<9} {checked.detail}")
            if checked.mend:
                say(f"{'':<18} -> {checked.mend}")
    if is_wrong:
        raise typer.Exit(_FOUND_WRONG)
