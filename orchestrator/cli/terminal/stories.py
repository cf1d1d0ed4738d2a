"""How stories, fates and events look in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.terminal.output import facts, instant, printable, table
from orchestrator.domain import events as ev
from orchestrator.domain.durations import format_duration
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.explain import Wait, length
from orchestrator.history.cycles import CycleStory
from orchestrator.history.fate import Fate
from orchestrator.history.restart_story import RestartStory

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


def restart_story(story: RestartStory) -> Iterator[RenderableType]:
    """Yield the sentence, then the facts behind it."""
    yield Text(printable(story.explanation))
    yield Text("")
    yield facts(_restart_facts(story))
    if story.cycles:
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
        yield table(columns, map(_cycle_cells, story.cycles))
    if story.top_paths:
        yield Text("\nMost written", style="bold")
        yield table(("WRITES", "PATH"), ((count.writes, count.path) for count in story.top_paths))
    if story.actors:
        yield Text("\nBy", style="bold")
        yield table(("EVENTS", "ACTOR"), ((count.events, count.actor) for count in story.actors))


def _restart_facts(story: RestartStory) -> list[tuple[str, Any]]:
    record, window = story.restart, story.window
    numbers = (
        f"quiet {format_duration(window.quiet_ms)}, max_wait {format_duration(window.max_wait_ms)}, "
        f"min_interval {format_duration(window.min_interval_ms)}, max_count {window.max_count}, "
        f"edge {window.edge.value} (policy version {window.policy_version})"
    )
    return [
        ("restart", record.id),
        ("workspace", f"{record.workspace} (fleet {record.fleet})"),
        ("state", record.state.value + (" (shadow)" if record.shadow else "")),
        ("cause", record.cause.value),
        ("range", f"positions {record.from_position} to {record.to_position}"),
        ("window", f"{instant(window.opened_at)} to {instant(window.due_at)} UTC, queued {instant(window.queued_at)}"),
        ("numbers", numbers),
        ("waited", ", ".join(map(_wait_text, story.waited))),
        ("requests", "; ".join(f"{one.trigger.value} by {one.actor}: {one.reason}" for one in story.requests)),
        ("error", record.error),
        ("truncated", "the range is long: actors, paths and requests are of its first events" * story.truncated),
    ]


def _wait_text(wait: Wait) -> str:
    lasts = " so far" if wait.until is None else ""
    return f"{wait.reason.value} {length(wait.ms)}{lasts}"


def _cycle_cells(cycle: CycleStory) -> Sequence[Any]:
    outcome = cycle.outcome.value + (f": {' '.join(cycle.error.split())}" if cycle.error else "")
    return (
        cycle.cycle,
        cycle.attempt,
        cycle.fence,
        cycle.worker,
        instant(cycle.started_at),
        instant(cycle.previous_started_at),
        cycle.policy_version,
        None if cycle.duration_ms is None else length(cycle.duration_ms),
        outcome,
    )


def fate_facts(fate: Fate) -> list[tuple[str, Any]]:
    """Return the facts of a write or request, as name and value."""
    return [
        ("id", fate.id),
        ("workspace", fate.workspace),
        ("position", fate.position),
        ("path", fate.path),
        ("trigger", fate.trigger.value if fate.trigger else None),
        ("reason", fate.reason),
        ("recorded", f"{instant(fate.recorded_at)} UTC"),
        ("status", fate.status.value),
        ("restart", fate.restart),
        ("cycle", fate.cycle),
        ("cycle started", None if fate.start_waited_ms is None else f"{length(fate.start_waited_ms)} later"),
        ("covered", None if fate.waited_ms is None else f"{length(fate.waited_ms)} later"),
    ]


def event_line(event: ev.Recorded) -> str:
    """Return an event as one line for a person."""
    plain = to_plain(event.data)
    first = _SHOWN_FIRST.get(event.type, tuple(plain))
    shown = [f"{name}={_short(plain[name])}" for name in first if plain.get(name) is not None and _fits(name)]
    at = (instant(event.recorded_at) or "")[11:]
    return f"{event.position:>8}  {at}  {event.workspace or '-'}  {event.type}  {' '.join(shown)}  ({event.actor})"


def _fits(name: str) -> bool:
    return name not in _LONG_FIELDS


def _short(value: Any) -> str:
    """Return a long text on one line with its middle left out: the end of a failure says why."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_MOST else f"{text[:60]} [...] {text[-(_SHOWN_MOST - 67) :]}"
