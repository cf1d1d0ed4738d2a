"""How stories, fates and events look in a terminal; they are given as the API answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.terminal.output import facts, instant, printable, table
from orchestrator.domain.durations import format_duration
from orchestrator.domain.explain import length

View = dict[str, Any]

_SHOWN_FIRST = {
    "FileWritten": ("op", "path", "action"),
    "RestartQueued": ("restart", "cause", "writes", "files"),
    "CycleStarted": ("restart", "cycle", "attempt", "fence"),
    "CycleSucceeded": ("restart", "cycle", "duration_ms"),
    "CycleFailed": ("restart", "cycle", "error_kind", "message", "retry_at"),
}
_SHOWN_MOST = 200
_LONG_FIELDS = frozenset({"output", "target", "policy", "labels"})
"""Left out of the one line of an event; ``--json`` has them."""


def restart_story(story: View) -> Iterator[RenderableType]:
    """Yield the sentence, then the facts behind it."""
    yield Text(printable(story["explanation"]))
    yield Text("")
    yield facts(_restart_facts(story))
    if story["cycles"]:
        yield Text("\nCycles", style="bold")
        columns = (
            "CYCLE",
            "ATTEMPT",
            "FENCE",
            "WORKER",
            "STARTED (UTC)",
            "PREVIOUS START (UTC)",
            "POLICY",
            "TOOK",
            "OUTCOME",
        )
        yield table(columns, map(_cycle_cells, story["cycles"]))
    if story["top_paths"]:
        yield Text("\nMost written", style="bold")
        yield table(("WRITES", "PATH"), ((count["writes"], count["path"]) for count in story["top_paths"]))
    if story["actors"]:
        yield Text("\nBy", style="bold")
        yield table(("EVENTS", "ACTOR"), ((count["events"], count["actor"]) for count in story["actors"]))


def _restart_facts(story: View) -> list[tuple[str, Any]]:
    window = story["window"]
    opened, due, queued = (instant(window[name]) for name in ("opened_at", "due_at", "queued_at"))
    durations = (f"{name} {format_duration(window[f'{name}_ms'])}" for name in ("quiet", "max_wait", "min_interval"))
    more = f"max_count {window['max_count']}, edge {window['edge']} (policy version {window['policy_version']})"
    return [
        ("restart", story["id"]),
        ("workspace", f"{story['workspace']} (fleet {story['fleet']})"),
        ("state", story["state"] + (" (shadow)" if story["shadow"] else "")),
        ("cause", story["cause"]),
        ("range", f"positions {story['from_position']} to {story['to_position']}"),
        ("window", f"{opened} to {due} UTC, queued {queued}"),
        ("numbers", f"{', '.join(durations)}, {more}"),
        ("waited", ", ".join(map(_wait_text, story["waited"]))),
        ("requests", "; ".join(f"{one['trigger']} by {one['actor']}: {one['reason']}" for one in story["requests"])),
        ("error", story["error"]),
        ("truncated", "the range is long: actors, paths and requests are of its first events" * story["truncated"]),
    ]


def _wait_text(wait: View) -> str:
    lasts = " so far" if wait["until"] is None else ""
    return f"{wait['reason']} {length(wait['ms'])}{lasts}"


def _cycle_cells(cycle: View) -> Sequence[Any]:
    outcome = cycle["outcome"] + (f": {' '.join(cycle['error'].split())}" if cycle["error"] else "")
    return (
        cycle["cycle"],
        cycle["attempt"],
        cycle["fence"],
        cycle["worker"],
        instant(cycle["started_at"]),
        instant(cycle["previous_started_at"]),
        cycle["policy_version"],
        None if cycle["duration_ms"] is None else length(cycle["duration_ms"]),
        outcome,
    )


def fate_facts(fate: View) -> list[tuple[str, Any]]:
    """Return the facts of a write or request, as name and value."""
    names = ("id", "workspace", "position", "path", "trigger", "reason")
    return [
        *((name, fate[name]) for name in names),
        ("recorded", f"{instant(fate['recorded_at'])} UTC"),
        ("status", fate["status"]),
        ("restart", fate["restart"]),
        ("cycle", fate["cycle"]),
        ("cycle started", None if fate["start_waited_ms"] is None else f"{length(fate['start_waited_ms'])} later"),
        ("covered", None if fate["waited_ms"] is None else f"{length(fate['waited_ms'])} later"),
    ]


def crash_loop(workspace: str, loop: View) -> str:
    """Return the sentence about a program that dies again and again."""
    how = f"signal {loop['signal']}" if loop["exit_code"] is None else f"exit code {loop['exit_code']}"
    files = ", ".join(loop["files"]) or "no file"
    before = f"restart {loop['restart']} of {files}" if loop["restart"] else "no restart"
    began_at, deaths = instant(loop["began_at"]), loop["deaths"]
    return (
        f"{workspace} is crash looping since {began_at}: died {deaths} times in a row, last by {how}; before it began: "
        f"{before}"
    )


def event_line(event: View) -> str:
    """Return an event as one line for a person."""
    data = event["data"]
    first = _SHOWN_FIRST.get(event["type"], tuple(data))
    shown = [f"{name}={_short(data[name])}" for name in first if data.get(name) is not None and _fits(name)]
    at = (instant(event["recorded_at"]) or "")[11:]
    told = f"{event['type']}  {' '.join(shown)}  ({event['actor']})"
    return f"{event['position']:>8}  {at}  {event['workspace'] or '-'}  {told}"


def _fits(name: str) -> bool:
    return name not in _LONG_FIELDS


def _short(value: Any) -> str:
    """Return a long text on one line with its middle left out: the end of a failure says why."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_MOST else f"{text[:60]} [...] {text[-(_SHOWN_MOST - 67) :]}"
