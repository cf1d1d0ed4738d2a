"""The save burst: 17 writes of each workspace, as fast as they are taken or as people save; and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

WRITES_EACH = 17
QUIET_S = 0.5
"""How long a workspace must be quiet before it is restarted."""

JOB_S = 0.05
"""How long a restart takes."""

JOBS_AT_ONCE = 50
_A_SECOND = 850
_SAVE_TAKES_S = 2.0
_WOBBLE_S = 0.06
_TURNS = 100
_EARLY_S = 0.005

Planned = tuple[float, str]
"""When, in seconds from the start, and to which workspace."""


def burst(workspaces: int) -> list[Planned]:
    """Return all writes at once; a hundred workspaces take turns, so that a workspace's writes are not neighbours."""
    names = _names(workspaces)
    groups = [names[start : start + _TURNS] for start in range(0, workspaces, _TURNS)]
    return [(0.0, name) for group in groups for _ in range(WRITES_EACH) for name in group]


def paced(workspaces: int) -> list[Planned]:
    """Return saves of two seconds each that begin at random, 850 writes a second in all."""
    random = Random(workspaces)
    begin_within_s = max(0.0, workspaces * WRITES_EACH / _A_SECOND - _SAVE_TAKES_S)
    found: list[Planned] = []
    for name in _names(workspaces):
        begins_s = random.uniform(0.0, begin_within_s)
        for number in range(WRITES_EACH):
            wobble_s = random.uniform(-_WOBBLE_S, _WOBBLE_S) if number else 0.0
            found.append((begins_s + _SAVE_TAKES_S * number / (WRITES_EACH - 1) + wobble_s, name))
    return sorted(found)


def shares(plan: Sequence[Planned], clients: int) -> list[list[Planned]]:
    """Return each client's part: every workspace is one client's."""
    return [[item for item in plan if int(item[1].rpartition("-")[2]) % clients == client] for client in range(clients)]


def written(plan: Sequence[Planned], path: Path) -> Path:
    """Write a plan as JSON for a client of any language; return its file."""
    path.write_text(json.dumps(plan))
    return path


def _names(workspaces: int) -> list[str]:
    return [f"ws-{number:06}" for number in range(workspaces)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a burst. ``late``: the last restart's start after the last write and the quiet time.

    ``lost``: workspaces whose last write was sent after their last restart had begun.
    """

    writes: int
    workspaces: int
    accepted_a_second: float
    ack_p50_ms: float
    ack_p99_ms: float
    restarts: int
    lost: int
    overlaps: int
    early: int
    late_p50_ms: float
    late_p99_ms: float

    @property
    def restarts_each(self) -> float:
        """Return the restarts a workspace."""
        return self.restarts / self.workspaces


def judged(clients: Iterable[Path], worker: Path) -> Outcome:
    """Read the clients' logs (``workspace sent acknowledged``) and the worker's (``workspace start end``)."""
    writes: dict[str, list[tuple[int, int]]] = {}
    for path in clients:
        _gather(path, writes)
    restarts: dict[str, list[tuple[int, int]]] = {}
    _gather(worker, restarts)
    every = [item for found in writes.values() for item in found]
    took_s = (max(acked for _, acked in every) - min(sent for sent, _ in every)) / 1e9
    acks_ms = sorted((acked - sent) / 1e6 for sent, acked in every)
    late_s, lost = _lateness(writes, restarts)
    late_ms = sorted(value * 1000 for value in late_s) or [float("nan")]
    return Outcome(
        writes=len(every),
        workspaces=len(writes),
        accepted_a_second=len(every) / took_s,
        ack_p50_ms=_at(acks_ms, 0.5),
        ack_p99_ms=_at(acks_ms, 0.99),
        restarts=sum(len(found) for found in restarts.values()),
        lost=lost,
        overlaps=sum(_overlaps(sorted(found)) for found in restarts.values()),
        early=sum(1 for value in late_s if value < -_EARLY_S),
        late_p50_ms=_at(late_ms, 0.5),
        late_p99_ms=_at(late_ms, 0.99),
    )


def _gather(path: Path, into: dict[str, list[tuple[int, int]]]) -> None:
    for line in path.read_text().splitlines():
        name, begun, ended = line.split()
        into.setdefault(name, []).append((int(begun), int(ended)))


def _lateness(
    writes: Mapping[str, list[tuple[int, int]]], restarts: Mapping[str, list[tuple[int, int]]]
) -> tuple[list[float], int]:
    late_s: list[float] = []
    lost = 0
    for name, sent in writes.items():
        last_sent = max(at for at, _ in sent)
        last_start = max((start for start, _ in restarts.get(name, [])), default=0)
        if last_start < last_sent:
            lost += 1
        else:
            late_s.append((last_start - last_sent) / 1e9 - QUIET_S)
    return late_s, lost


def _overlaps(spans: Sequence[tuple[int, int]]) -> int:
    found, open_until = 0, 0
    for start, end in spans:
        found += start < open_until
        open_until = max(open_until, end)
    return found


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
