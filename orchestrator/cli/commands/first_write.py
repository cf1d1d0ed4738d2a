"""What is said of a workspace that a write has just made: a mistyped name is a new workspace, too."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlencode

from orchestrator.cli.client import Client, Refused, segment
from orchestrator.errors import NotFound

_LOOKED_AT = 2_000
"""Workspaces that near names are looked for among; on a larger installation the first ones by id."""

_NEAR = 0.7
_PAGE = 500


def is_registered(client: Client, workspace: str) -> bool:
    """Return whether a workspace is there. True too for what is no id: the write itself is refused, and says why."""
    try:
        found = client.get(f"/v1/workspaces/{segment(workspace)}")[0]
    except NotFound:
        return False
    except Refused:
        return True
    return bool(found["state"] != "removed")


def newcomer_view(client: Client, workspace: str) -> dict[str, Any]:
    """Return a workspace that was not there before: its executor, None if it is still not there, and near names."""
    try:
        executor = client.get(f"/v1/workspaces/{segment(workspace)}")[0]["executor"]
    except NotFound:
        executor = None
    return {"workspace": workspace, "executor": executor, "near": near_names(client, workspace)}


def newcomer_sentence(newcomer: Mapping[str, Any]) -> str:
    """Return what a person should know of it."""
    workspace, near = newcomer["workspace"], newcomer["near"]
    simulated = ": its restarts are simulated, nothing real is restarted" * (newcomer["executor"] == "simulated")
    listed = f" Near that name: {', '.join(near)}." if near else ""
    return (
        f"{workspace} was not there: this write made a new workspace with executor {newcomer['executor']}{simulated}."
        f"{listed} If that is a typing error: `orchestrator remove {workspace}`"
    )


def near_names(client: Client, workspace: str) -> list[str]:
    """Return the ids of workspaces that are spelled much like this one, the nearest first; at most three."""
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None and len(names) < _LOOKED_AT:
        query = urlencode({"limit": _PAGE, **({"cursor": cursor} if cursor else {})})
        answer = client.get(f"/v1/workspaces?{query}")[0]
        names += [item["id"] for item in answer["items"] if item["id"] != workspace]
        cursor = answer["next_cursor"]
    by_folded = {name.casefold(): name for name in reversed(names)}
    return [by_folded[one] for one in get_close_matches(workspace.casefold(), by_folded, n=3, cutoff=_NEAR)]
