"""What ``up`` is told of its command on the command line, as fields of the workspace's target."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import InvalidInput


def program_options(
    *,
    ready: str | None,
    grace: str | None,
    env: Sequence[str],
    stop_signal: str | None,
    reload_signal: str | None,
    stdin: str | None,
    once: bool | None,
) -> dict[str, Any]:
    """Return the fields that were given. Raises ``InvalidInput``; their values are checked by the executor."""
    given = {
        "ready": None if ready is None else parse_ready(ready),
        "grace": grace,
        "env": dict(map(_variable, env)) or None,
        "stop_signal": stop_signal,
        "reload_signal": reload_signal,
        "stdin": stdin,
        "once": once,
    }
    return {name: value for name, value in given.items() if value is not None}


def parse_ready(text: str) -> dict[str, Any]:
    """Return ``tcp:[HOST:]PORT``, ``http://...``, ``command:LINE`` or ``none`` as a target's ``ready``."""
    kind, _, rest = text.partition(":")
    if text == "none":
        return {"type": "none"}
    if kind in ("http", "https"):
        return {"type": "http", "url": text}
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        if port.isdecimal():
            return {"type": "tcp", "port": int(port)} | ({"host": host.strip("[]")} if host else {})
    if kind == "command":
        try:
            argv = shlex.split(rest)
        except ValueError as error:
            raise InvalidInput(f"--ready: {rest!r} cannot be read as a command: {error}", field="ready") from None
        if argv:
            return {"type": "command", "argv": argv}
    raise InvalidInput(
        f"--ready: {text!r} is none of tcp:PORT, tcp:HOST:PORT, http://HOST:PORT/PATH, command:LINE, none",
        field="ready",
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"--env: {text!r} must be NAME=VALUE", field="env")
    return name, value
