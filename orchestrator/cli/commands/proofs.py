"""``orchestrator audit checkpoint`` and ``audit evidence``: the proofs that an auditor takes away."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.reading.database import reading
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json
from orchestrator.cli.terminal.output import emit, emit_json, facts, fail, instant, note, show
from orchestrator.errors import InvalidInput, NotFound
from orchestrator.history.views import checkpoint_view
from orchestrator.ports.sealing import StoredCheckpoint
from orchestrator.ports.store import EventStore
from orchestrator.replace_file import replace_file
from orchestrator.sealing.bundle import make_bundle
from orchestrator.settings import load_settings

_FOUND_WRONG = 1

Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else stdout.")]


def checkpoint_command(
    *,
    seal: Annotated[bool, typer.Option("--seal", help="Seal first, with ORCHESTRATOR_SEAL_KEY.")] = False,
    trust_stored: Annotated[
        bool, typer.Option("--trust-stored", help="With --seal: the last checkpoint's key is lost; go on from it.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Show the newest checkpoint; with --output write its signed note, which `audit verify --checkpoint` reads.

    Exits with 1 if --seal could not seal or export everything.
    """
    if trust_stored and not seal:
        raise InvalidInput("--trust-stored is for --seal: say both", field="trust_stored")
    with reading(database_url, data) as store:
        problems = _seal(store, database_url, data, trust_stored=trust_stored) if seal else []
        with store.read() as reader:
            newest = reader.seals.newest()
    for problem in problems:
        fail(problem)
    if newest is None and not problems:
        raise NotFound("nothing is sealed yet; `orchestrator up`, and workers with a seal key, do so every 10 s")
    if newest is not None:
        _tell(newest, output, as_json=as_json)
    if problems:
        raise typer.Exit(_FOUND_WRONG)


def _seal(store: EventStore, database_url: str | None, data: Path | None, *, trust_stored: bool) -> list[str]:
    """Seal everything in this process; return what went wrong. Raises ``InvalidInput`` where no key is named."""
    from orchestrator.bootstrap import build_sealer  # here: it imports Celery, which no command that reads needs

    settings = load_settings(database_url=database_url, data=data)
    if settings.database_url is None:
        settings = settings.sealing_in_data_folder()
    sealer = build_sealer(store, settings, trust_stored=trust_stored)
    if sealer is None:
        raise InvalidInput("--seal needs a key: set ORCHESTRATOR_SEAL_KEY to the key file", field="seal")
    return sealer.run(within_s=math.inf).problems


def _tell(newest: StoredCheckpoint, output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        _write(output, newest.note)
    if as_json:
        emit_json(checkpoint_view(newest))
    elif output is not None:
        note(f"checkpoint of {newest.tree_size} events written to {output}")
    else:
        exported = instant(newest.exported_at) or "not yet to every place"
        pairs = [
            ("events", newest.tree_size),
            ("last position", newest.position),
            ("root", newest.root),
            ("sealed (UTC)", instant(newest.sealed_at)),
            ("exported (UTC)", exported),
        ]
        show(facts(pairs))
        emit(f"\n{newest.note}")


def evidence_command(
    restart: Annotated[str, typer.Argument(metavar="RESTART", help="A restart (rst_...).")],
    *,
    output: Output = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Write the evidence of a restart: its events, proven, with a signed checkpoint; `audit verify` checks it offline.

    A bundle is JSON either way; with --json and --output a summary is printed as JSON too.
    """
    with reading(database_url, data) as store, store.read() as reader:
        bundle = make_bundle(reader, restart)
    if output is None:
        emit(bundle)
        return
    _write(output, bundle)
    if as_json:
        emit_json({"restart": restart, "file": str(output)})
    else:
        note(f"evidence of {restart} written to {output}")


def _write(output: Path, text: str) -> None:
    try:
        replace_file(output, text.encode())
    except OSError as error:
        raise InvalidInput(f"--output: cannot write {output}: {error.strerror}", field="output") from None
