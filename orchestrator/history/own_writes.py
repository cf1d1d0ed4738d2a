"""By which files a program seems to have restarted itself, as the log has it: computed when it is read."""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.events import CycleStarted, FileWritten
from orchestrator.domain.own_writes import ROUNDS, as_long_after
from orchestrator.domain.policy import Action
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.ports.store import EventFilter, Reader

_TYPES = (FileWritten.type_name(), CycleStarted.type_name())
_LOOKED_BACK = 1_000
"""So many writes and starts before the end of the restart's range; a round that reaches beyond is not judged."""


def own_writes(reader: Reader, record: RestartProjection) -> list[str]:
    """Return the paths that were written as long after each of the last starts before a restart, sorted.

    One statement. Writes that restart nothing (action ``record``) do not count.
    """
    wanted = EventFilter(
        to_position=record.to_position, newest=True, workspace=record.workspace, types=_TYPES, limit=_LOOKED_BACK
    )
    rounds: list[tuple[datetime, dict[str, float]]] = []
    for event in reader.events(wanted):
        data = event.data
        if isinstance(data, CycleStarted):
            rounds = [*rounds[1 - ROUNDS :], (event.recorded_at, {})]
        elif isinstance(data, FileWritten) and data.action is not Action.RECORD and rounds:
            started_at, first = rounds[-1]
            first.setdefault(data.path, (event.recorded_at - started_at).total_seconds())
    candidates = sorted(rounds[-1][1]) if rounds else []
    return [path for path in candidates if as_long_after([first[path] for _, first in rounds if path in first])]
