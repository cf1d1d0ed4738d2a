"""``orchestrator policy``: show the numbers in force, change a layer, check a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Client, segment
from orchestrator.cli.commands.act import policy_values
from orchestrator.cli.reading.choose import chosen_source
from orchestrator.cli.terminal.options import DEFAULT_URL, Data, DatabaseUrl, Json, ReadUrl, Url
from orchestrator.cli.terminal.output import emit_json, fail, say, show, table
from orchestrator.domain.policy import PolicyPatch, parse_policy, render_policy
from orchestrator.errors import InvalidInput, PreconditionFailed

_TRIES = 3

app = typer.Typer(rich_markup_mode=None)

Fleet = Annotated[str | None, typer.Option(help="The policy of this fleet.")]
OfWorkspace = Annotated[str | None, typer.Option("--workspace", help="The workspace's own policy.")]


@app.command("show")
def show_command(
    *,
    fleet: Fleet = None,
    workspace: OfWorkspace = None,
    as_json: Json = False,
    url: ReadUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Show the numbers in force and which layer each comes from."""
    check_one(fleet, workspace)
    with chosen_source(url, database_url, data) as source:
        view = source.policy(fleet, workspace)
    if as_json:
        emit_json(view)
        return
    say(f"policy {view['scope']}, in force with version {view['version']}")
    rows = ((name, _text(value), view["from"].get(name, "built in")) for name, value in view["in_force"].items())
    show(table(("NUMBER", "IN FORCE", "FROM"), rows))


@app.command("set")
def set_command(
    numbers: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="quiet=2s, max_count=100; quiet= takes it out.")
    ] = None,
    *,
    fleet: Fleet = None,
    workspace: OfWorkspace = None,
    replace: Annotated[bool, typer.Option("--replace", help="The layer says only this; else it is merged.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Change the default policy, a fleet's or a workspace's own."""
    check_one(fleet, workspace)
    if not numbers and not replace:
        raise InvalidInput("nothing to set; write like quiet=2s max_wait=30s, or --replace for an empty layer")
    values = policy_values(numbers or ())
    with Client(url) as client:
        if workspace is not None:
            answer = _set_of_workspace(client, workspace, values, replace=replace)
        else:
            path = f"/v1/policies/fleets/{segment(fleet)}" if fleet is not None else "/v1/policies/default"
            answer = _set_layer(client, path, values, replace=replace)
    if as_json:
        emit_json(answer)
    else:
        layer = json.dumps(answer.get("policy", {}))
        say(f"policy of {_named(fleet, workspace)}: {layer}")


def _set_layer(client: Client, path: str, values: Mapping[str, Any], *, replace: bool) -> dict[str, Any]:
    """Read, merge, and put on condition that nobody changed it in between; then try again."""
    for left in reversed(range(_TRIES)):
        current, etag = client.get(path)
        try:
            answer: dict[str, Any] = client.put(
                path, _merged(current["policy"], values, replace=replace), if_match=etag
            )
        except PreconditionFailed:
            if left == 0:
                raise
        else:
            return answer
    raise AssertionError("the last try returns or raises")


def _set_of_workspace(client: Client, workspace: str, values: Mapping[str, Any], *, replace: bool) -> dict[str, Any]:
    path = f"/v1/workspaces/{segment(workspace)}"
    current, etag = client.get(path)
    kept = {name: current[name] for name in ("fleet", "labels", "executor", "target")}
    policy = _merged(current["policy"], values, replace=replace)
    answer: dict[str, Any] = client.put(path, {**kept, "policy": policy}, if_match=etag)
    return answer


def _merged(current: Mapping[str, Any], values: Mapping[str, Any], *, replace: bool) -> dict[str, Any]:
    merged = {**({} if replace else current), **values}
    return {name: value for name, value in merged.items() if value is not None}


@app.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy layer as TOML or JSON.")],
    *,
    as_json: Json = False,
) -> None:
    """Check a policy file: print it in canonical form, or say what is wrong and exit with 1."""
    try:
        rendered = render_policy(read_policy_file(file))
    except PolicyRefused as error:
        fail(str(error))
        raise typer.Exit(1) from None
    if as_json:
        emit_json(rendered)
    else:
        show(*(f"{name} = {_text(value)}" for name, value in rendered.items()))


class PolicyRefused(InvalidInput):
    """What a file holds is no policy."""


def read_policy_file(file: Path) -> PolicyPatch:
    """Return the layer that a file holds, TOML or JSON. Raises ``InvalidInput``, ``PolicyRefused`` for its content."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from None
    try:
        return parse_policy(_parsed(raw, is_json=file.suffix.lower() == ".json"))
    except InvalidInput as error:
        raise PolicyRefused(f"{file}: {error}") from None


def _parsed(raw: bytes, *, is_json: bool) -> Mapping[str, Any]:
    try:
        text = raw.decode()
        value = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"is no {'JSON' if is_json else 'TOML'}: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput('must hold an object like {"quiet": "2s"}')
    return value


def _text(value: Any) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


def check_one(fleet: str | None, workspace: str | None) -> None:
    """Raise ``InvalidInput`` where a fleet and a workspace are both named."""
    if fleet is not None and workspace is not None:
        raise InvalidInput("give --fleet or --workspace, not both", field="fleet")


def _named(fleet: str | None, workspace: str | None) -> str:
    if workspace is not None:
        return f"workspace {workspace}"
    return f"fleet {fleet}" if fleet is not None else "all workspaces"
