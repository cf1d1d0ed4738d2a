"""``orchestrator audit keys``: the keys that sign checkpoints. They need no database and no server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.terminal.options import Json
from orchestrator.cli.terminal.output import emit, emit_json, note
from orchestrator.sealing.keys import make_key_file, public_lines, public_path, read_keys, rotate
from orchestrator.settings import load_settings

app = typer.Typer(rich_markup_mode=None)

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The key file, as ORCHESTRATOR_SEAL_KEY names it.")]


@app.command("new")
def new_command(
    file: KeyFile,
    *,
    origin: Annotated[
        str | None, typer.Option(metavar="NAME", help="The log's name for ever, like audit.example.com/log.")
    ] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Leave one that is there as it is.")] = False,
    as_json: Json = False,
) -> None:
    """Make a key file (mode 0600) and its public half, FILE with the suffix .pub."""
    if if_missing and file.exists():
        key = read_keys(file)[-1]
        _told(file, key.public.line(), f"{file} is there already, with key {key.public.label}", as_json=as_json)
        return
    from orchestrator.bootstrap import default_origin  # here: it imports Celery, which no other command of keys needs

    key = make_key_file(file, origin or default_origin(load_settings()))
    _told(file, key.public.line(), f"key {key.public.label} written to {file}", as_json=as_json)


@app.command("rotate")
def rotate_command(file: KeyFile, *, as_json: Json = False) -> None:
    """Add a key to a key file: from the next seal on all of its keys sign.

    Give auditors the new public keys; when all of them have one, delete the old line from the file.
    """
    key = rotate(file)
    later = f"delete the line of the old one when auditors have {public_path(file)}"
    _told(file, key.public.line(), f"key {key.public.label} added to {file}; {later}", as_json=as_json)


@app.command("public")
def public_command(file: KeyFile, *, as_json: Json = False) -> None:
    """Print the public keys of a key file, one a line: what `audit verify --pubkey FILE` reads."""
    keys = read_keys(file)
    if as_json:
        emit_json({"keys": [key.public.line() for key in keys]})
    else:
        emit(public_lines(keys))


def _told(file: Path, public: str, said: str, *, as_json: bool) -> None:
    if as_json:
        emit_json({"file": str(file), "public_file": str(public_path(file)), "public_key": public})
    else:
        note(said)
        emit(f"{public}\n")
