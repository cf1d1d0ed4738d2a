"""What the log of a run says afterwards, read by SQL that every revision's tables understand."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

_ENDS = ("CycleSucceeded", "CycleFailed", "CycleAbandoned")


@dataclass(frozen=True)
class Event:
    """One event; ``at`` in seconds since 1970, exact to the microsecond."""

    position: int
    workspace: str
    type: str
    at: float
    data: dict[str, Any]


@dataclass(frozen=True)
class Cycle:
    """A cycle that has ended well: its workspace, range of positions, and when it started and ended."""

    workspace: str
    restart: str
    from_position: int
    to_position: int
    started_at: float
    ended_at: float


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds in the database of a URL."""
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(f"file:{Path(url.removeprefix('sqlite:///'))}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def count(url: str, type_: str) -> int:
    """Return how many events of a type there are."""
    return int(rows(url, f"SELECT count(*) FROM events WHERE type = '{type_}'")[0][0])


def restarts_ended(url: str) -> int:
    """Return how many restarts have succeeded so far."""
    return int(rows(url, "SELECT count(*) FROM restarts WHERE state = 'succeeded'")[0][0])


def events(url: str, *types: str) -> Iterator[Event]:
    """Yield the events of some types in order."""
    listed = ", ".join(f"'{name}'" for name in types)
    query = (
        f"SELECT position, workspace, type, recorded_at, data FROM events WHERE type IN ({listed}) ORDER BY position"
    )
    for position, workspace, type_, at, data in rows(url, query):
        yield Event(position, workspace or "", type_, seconds(at), json.loads(data))


def seconds(at: datetime | str) -> float:
    """Return an instant, as a database or an event spells it, in seconds since 1970."""
    found = datetime.fromisoformat(at) if isinstance(at, str) else at
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def cycles(url: str) -> tuple[list[Cycle], int]:
    """Return the cycles that ended well, and how often a workspace's cycle began while another was open."""
    found: list[Cycle] = []
    open_cycles: dict[str, Event] = {}
    overlaps = 0
    for event in events(url, "CycleStarted", *_ENDS):
        if event.type == "CycleStarted":
            overlaps += event.workspace in open_cycles
            open_cycles[event.workspace] = event
            continue
        start = open_cycles.pop(event.workspace, None)
        if start is not None and event.type == "CycleSucceeded":
            data = start.data
            found.append(
                Cycle(
                    workspace=event.workspace,
                    restart=data["restart"],
                    from_position=data["from_position"],
                    to_position=data["to_position"],
                    started_at=start.at,
                    ended_at=event.at,
                )
            )
    return found, overlaps


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often writes are named by restarts: each once, if all is well."""

    writes: int
    once: int
    never: int
    more_often: int


def coverage(url: str, ended: Sequence[Cycle]) -> Coverage:
    """Compare every write that asked for a restart with the ranges of the restarts that were carried out."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for cycle in ended:
        ranges.setdefault(cycle.workspace, []).append((cycle.from_position, cycle.to_position))
    for found in ranges.values():
        found.sort()
    named: Counter[int] = Counter()
    query = "SELECT position, workspace FROM events WHERE type = 'FileWritten'"
    for position, workspace in rows(url, query):
        named[min(_names(ranges.get(workspace, []), position), 2)] += 1
    return Coverage(writes=sum(named.values()), once=named[1], never=named[0], more_often=named[2])


def _names(ranges: Sequence[tuple[int, int]], position: int) -> int:
    """Return how many of a workspace's ranges hold a position; sound ones do not overlap, these may."""
    begun = bisect_right(ranges, (position, 1 << 62))
    return sum(1 for _, to_position in ranges[:begun] if to_position >= position)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of all lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def rate_of_groups(instants: Sequence[float]) -> float:
    """Return how many a second were recorded, where those of one commit share an instant.

    The work for a group lies between its instant and the next one's, so the last group is left out.
    Raises ``ValueError`` where all share one instant: there were too few.
    """
    sizes = Counter(instants)
    first, last = min(sizes), max(sizes)
    if first == last:
        raise ValueError(f"all {len(instants)} were recorded at one instant; more are needed for a rate")
    return (len(instants) - sizes[last]) / (last - first)
