"""``--wait`` of ``write`` and ``restart``: until a restart that started later has succeeded, or never will."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from orchestrator.cli.client import Client, segment
from orchestrator.cli.terminal.output import note, say
from orchestrator.domain.durations import parse_duration
from orchestrator.domain.explain import FateStatus
from orchestrator.errors import Unavailable

View = dict[str, Any]

Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait until it is covered: exit 0. Exit 1: waived, recorded only, its restart was given up, --timeout.",
    ),
]
Timeout = Annotated[str | None, typer.Option(metavar="DURATION", help="Wait no longer than this (implies --wait): 5m.")]

_NOT_COVERED = 1
_HELD_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""How long the server holds one answer, the last one again and again; in between it is asked whether the restart was
given up."""
_AWAY_S = 30.0
"""A server that is away for longer ends the waiting."""
_AGAIN_S = 0.5
_ENDLESS_MS = 2**62


def waiting_ms(*, wait: bool, timeout: str | None) -> int | None:
    """Return how long to wait at most, None: not at all. Raises ``InvalidInput``."""
    if timeout is not None:
        return parse_duration(timeout, field="--timeout")
    return _ENDLESS_MS if wait else None


def until_settled(client: Client, ids: Sequence[str], most_ms: int) -> list[View]:
    """Return the fates of writes and requests, each as soon as it is final, was given up, or the time is over.

    One that its restart has given up is pending still, and has ``gave_up``: that restart's id. Raises ``Unavailable``
    for a server that stays away.
    """
    deadline = time.monotonic() + most_ms / 1000
    return [_settled(client, one, deadline) for one in ids]


def _settled(client: Client, one: str, deadline: float) -> View:
    said = ""
    for held_s in chain(_HELD_S, repeat(_HELD_S[-1])):
        left_s = max(0.0, deadline - time.monotonic())
        fate = _asked(client, one, min(held_s, left_s))
        gave_up = None if fate["final"] else _given_up(client, fate)
        if fate["final"] or gave_up is not None or time.monotonic() >= deadline:
            return fate if gave_up is None else fate | {"gave_up": gave_up}
        if fate["explanation"] != said:
            said = fate["explanation"]
            note(f"{one}  waits: {said}")
    raise AssertionError("it waits until it returns or raises")


def _asked(client: Client, one: str, held_s: float) -> View:
    away_until = time.monotonic() + _AWAY_S
    while True:
        try:
            fate: View = client.get(f"/v1/writes/{segment(one)}?{urlencode({'wait': round(held_s, 3)})}")[0]
        except Unavailable:
            if time.monotonic() >= away_until:
                raise
            time.sleep(_AGAIN_S)
        else:
            return fate


def _given_up(client: Client, fate: Mapping[str, Any]) -> str | None:
    """Return the restart that has given a pending write or request up, if no other one has taken it since."""
    if fate["restart"] is not None:
        return None
    query = urlencode({"workspace": fate["workspace"], "state": "gave_up", "limit": 1})
    for record in client.get(f"/v1/restarts?{query}")[0]["items"]:
        if record["from_position"] <= fate["position"] <= record["to_position"]:
            return str(record["id"])
    return None


def say_fates(fates: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of each."""
    for fate in fates:
        gave_up = fate.get("gave_up")
        why = f" {gave_up} was given up: `orchestrator why {gave_up}` says why." if gave_up else ""
        say(f"{fate['id']}  {fate['status']}: {fate['explanation']}{why}")


def exit_unless_covered(fates: Sequence[Mapping[str, Any]] | None) -> None:
    """End the command with 1 where something that was waited for is not covered."""
    if fates is not None and any(fate["status"] != FateStatus.COVERED for fate in fates):
        raise typer.Exit(_NOT_COVERED)
