"""``orchestrator keys``: who may call the API, and what each may do (CONTRACT section 8).

By HTTP where a server is named; else on the machine of the database, which is how the first key is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.api.protocol.names import check_name
from orchestrator.cli.commands.key_keeping import chosen_keeping
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json
from orchestrator.cli.terminal.output import emit, emit_json, instant, note, say, show, table
from orchestrator.domain.scopes import ROLES, Role, grants_of
from orchestrator.history.views import View
from orchestrator.owner_key import make_owner_key

app = typer.Typer(rich_markup_mode=None)

KeysUrl = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Ask this server [ORCHESTRATOR_URL]; without one use the database."),
]
PerMinute = Annotated[int | None, typer.Option(min=1, max=1_000_000_000, metavar="N", help="At most so many.")]


@app.command("create")
def create_command(  # noqa: PLR0913 (each is an option)
    *,
    name: Annotated[str, typer.Option(help="Who acts with it: key:NAME in the log.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@fleet=GLOB|@workspace=GLOB]",
            help="In place of the role's scope of that name, or beside it; may be repeated.",
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="Valid so long, like 90d; else for ever.")] = (
        None
    ),
    writes_per_minute: PerMinute = None,
    reads_per_minute: PerMinute = None,
    as_json: Json = False,
    url: KeysUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Make a key, and print it: it is shown this once."""
    wanted = {
        "name": check_name(name, "--name"),
        "role": role.value,
        "scopes": scope or [],
        "expires": expires,
        "writes_per_minute": writes_per_minute,
        "reads_per_minute": reads_per_minute,
    }
    with chosen_keeping(url, database_url, data) as keeping:
        made = keeping.create(wanted)
    _tell(made, f"key {made['name']} made, {_lasting(made)}", as_json=as_json)


@app.command("rotate")
def rotate_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a live key.")],
    *,
    as_json: Json = False,
    url: KeysUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Make the key that takes another's place, and print it; the other one goes on for a day at most."""
    with chosen_keeping(url, database_url, data) as keeping:
        made = keeping.rotate(name)
    said = f"key {made['name']} made anew, {_lasting(made)}; the one before goes on for a day at most"
    _tell(made, said, as_json=as_json)


@app.command("list")
def list_command(
    *,
    as_json: Json = False,
    url: KeysUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """List keys by name, those that are over too; never a key itself."""
    with chosen_keeping(url, database_url, data) as keeping:
        found = keeping.keys()
    if as_json:
        emit_json({"items": found})
        return
    columns = ("NAME", "ID", "STATE", "ROLE", "SCOPES", "EXPIRES (UTC)", "LAST USED (UTC)")
    show(table(columns, map(_cells, found)) if found else "No key.")


@app.command("revoke")
def revoke_command(
    key: Annotated[str, typer.Argument(metavar="NAME|ID", help="All keys of a name, or one by its id.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")] = "revoked",
    as_json: Json = False,
    url: KeysUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """End a key: within a second it opens nothing any more, in any process."""
    with chosen_keeping(url, database_url, data) as keeping:
        ended = keeping.revoke(key, reason)
    if as_json:
        emit_json({"revoked": ended})
    elif ended:
        for one in ended:
            say(f"Revoked {one['name']} ({one['id']}).")
    else:
        say(f"{key} was over already.")


@app.command("owner")
def owner_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it is written, mode 0600.")],
    *,
    as_json: Json = False,
) -> None:
    """Make the owner's key of an API: name FILE by ORCHESTRATOR_OWNER_KEY to the API, and to who calls it.

    `orchestrator up` makes its own, which the commands find by themselves.
    """
    make_owner_key(file)
    if as_json:
        emit_json({"file": str(file)})
    else:
        note(f"owner's key written to {file}; start the API with ORCHESTRATOR_OWNER_KEY={file}")


def _tell(made: View, said: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(made)
        return
    emit(f"{made['key']}\n")
    note(f"{said}; it is shown this once: ORCHESTRATOR_KEY_FILE names a file with it to the commands")


def _lasting(made: View) -> str:
    end = instant(made["expires_at"])
    return "valid until it is revoked" if end is None else f"valid until {end} UTC"


def _cells(row: View) -> tuple[Any, ...]:
    return (
        row["name"],
        row["id"],
        row["state"],
        row["role"],
        "the role's" if row["scopes"] == _of_role(row["role"]) else " ".join(row["scopes"]),
        instant(row["expires_at"]),
        instant(row["last_used_at"]),
    )


def _of_role(role: str) -> list[str] | None:
    """Return the scopes of a role; None for one that only a newer version knows."""
    return grants_of(ROLES[Role(role)]).spelled() if role in set(Role) else None
