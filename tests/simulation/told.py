"""What people are told afterwards: the history of restarts, and what became of each write and request.

Both are answered by the product from rows that it folded; here the log alone is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from orchestrator.audit.verify.lines import microseconds, parse_instant
from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.history.fate import Fate, fates_of
from orchestrator.ports.store import CoreReader

_STATES = {
    "RestartQueued": "queued",
    "CycleStarted": "running",
    "CycleSucceeded": "succeeded",
    "CycleFailed": "retrying",
    "CycleAbandoned": "queued",
    "RestartGaveUp": "gave_up",
    "RestartCancelled": "cancelled",
}
_ENDS = ("succeeded", "gave_up", "cancelled")


@dataclass
class _Restart:
    """One restart, as the log tells of it."""

    state: str = "queued"
    attempts: int = 0
    cycle: str | None = None
    from_position: int = 0
    to_position: int = 0
    started_at: int | None = None
    ended_at: int | None = None
    retry_at: int | None = None


@dataclass
class _Told:
    restarts: dict[str, _Restart] = field(default_factory=lambda: defaultdict(_Restart))
    fates: dict[str, tuple[str, str | None, str | None]] = field(default_factory=dict)
    """By event: covered, waived, recorded or pending, and the restart and the cycle that covered it."""
    waiting: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, event: StoredEvent) -> None:
        data = msgspec.json.decode(bytes(event.data))
        name = event.workspace or ""
        if event.type == "FileWritten" and data["action"] == "record":
            self.fates[event.id] = ("recorded", None, None)
        elif event.type in ("FileWritten", "RestartRequested"):
            self.fates[event.id] = ("pending", None, None)
            self.waiting[name].append((event.position, event.id))
        elif event.type == "WritesWaived":
            self._settle(name, data["to_position"], ("waived", None, None))
        elif event.type in _STATES:
            self._restart(event.type, name, data, event.recorded_at)

    def _restart(self, kind: str, name: str, data: dict[str, Any], at: str) -> None:
        restart = self.restarts[data["restart"]]
        restart.state = _STATES[kind]
        restart.retry_at = (
            None if kind != "CycleFailed" or data["retry_at"] is None else parse_instant(data["retry_at"])
        )
        if kind in ("RestartQueued", "CycleStarted"):
            restart.from_position, restart.to_position = data["from_position"], data["to_position"]
        if kind == "CycleStarted":
            restart.attempts, restart.cycle, restart.started_at = restart.attempts + 1, data["cycle"], parse_instant(at)
        if restart.state in _ENDS:
            restart.ended_at = parse_instant(at)
        if kind == "CycleSucceeded":
            self._settle(name, restart.to_position, ("covered", data["restart"], data["cycle"]))

    def _settle(self, name: str, to_position: int, fate: tuple[str, str | None, str | None]) -> None:
        for position, event in self.waiting[name]:
            if position <= to_position:
                self.fates[event] = fate
        self.waiting[name] = [(position, event) for position, event in self.waiting[name] if position > to_position]


def wrongly_told(reader: CoreReader, events: Sequence[StoredEvent]) -> Iterator[str]:
    """Yield a sentence for each restart and each write of which the product tells something else than the log."""
    told = _Told()
    for event in events:
        told.take(event)
    for name, restart in told.restarts.items():
        record = reader.restart(name)
        said = (
            None
            if record is None
            else _Restart(
                state=record.state.value,
                attempts=record.attempts,
                cycle=record.cycle,
                from_position=record.from_position,
                to_position=record.to_position,
                started_at=_us(record.started_at),
                ended_at=_us(record.ended_at),
                retry_at=_us(record.retry_at) if record.state.value == "retrying" else None,
            )
        )
        if said != restart:
            yield f"history says of {name}: {said}; the log: {restart}"
    try:
        fates = fates_of(reader, list(told.fates))
    except Exception as error:  # noqa: BLE001 (rows that contradict each other raise; that is a finding too)
        yield f"nothing can be told of the writes: {type(error).__name__}: {error}"
        return
    for name, fate in told.fates.items():
        said_fate = _said(fates[name])
        if said_fate != fate:
            yield f"{name} is told to be {said_fate}; by the log it is {fate}"


def _said(fate: Fate) -> tuple[str, str | None, str | None]:
    covered = fate.status.value == "covered"
    return fate.status.value, fate.restart if covered else None, fate.cycle if covered else None


def _us(at: datetime | None) -> int | None:
    return None if at is None else microseconds(at)
