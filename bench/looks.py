"""What a coalescer that has nothing to do costs, and what a page of a list does: in this process, on a log as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

from orchestrator.domain.policy import DEFAULT_SCOPE, PolicyPatch
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import Phase
from orchestrator.errors import Conflict
from orchestrator.ports.store import EventFilter, EventStore, Reader, RestartFilter
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.operate import Operator
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.service.tick import Looked, look
from orchestrator.time_ordered_ids import TimeOrderedIds

_TIMES = 200
_SLOTS = 16
_TOGETHER = 1_000
_ROUNDS_MOST = 200
_ACTOR = "local:bench"
_IDS = TimeOrderedIds()

_PAGES: dict[str, Callable[[Reader], object]] = {
    "a page of workspaces": lambda reader: reader.workspaces(WorkspaceFilter()),
    "a later page of workspaces": lambda reader: reader.workspaces(WorkspaceFilter(after="ws-000050")),
    "a page of open windows": lambda reader: reader.workspaces(WorkspaceFilter(phase=Phase.WINDOW_OPEN)),
    "the newest restarts": lambda reader: reader.restarts(RestartFilter()),
    "the oldest events": lambda reader: reader.events(EventFilter()),
    "one workspace": lambda reader: reader.workspace("ws-000050"),
}


class NotIdle(Exception):
    """A log in which something is due was to be idle."""


class _Bell:
    """Nobody hears it."""

    def ring(self, workspace: str) -> None:
        """Do nothing."""


def idle_look_ms(store: EventStore) -> float:
    """Return what a look of the coalescer takes that finds nothing to do. Raises ``NotIdle`` where there is."""
    took_ms: list[float] = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        looked = _look(store)
        took_ms.append((time.perf_counter() - began) * 1000)
        if looked.changed or looked.rung:
            raise NotIdle(f"a look changed {looked.changed} workspaces and rang {looked.rung} times")
    return median(took_ms)


def pages_ms(store: EventStore) -> dict[str, float]:
    """Return what a page of each list takes."""
    return {name: median(_took_ms(store, ask)) for name, ask in _PAGES.items()}


def settle(store: EventStore) -> None:
    """Fold what is due, and cancel what nobody carries out, until nothing is left to do. Raises ``NotIdle``."""
    operator = Operator(store, _IDS)
    for _ in range(_ROUNDS_MOST):
        looked, unsettled = _look(store), _unsettled(store)
        for record in unsettled:
            try:
                operator.cancel(record, "nobody carries it out", Author(actor=_ACTOR))
            except Conflict:
                continue  # it has moved on: the next round sees to it
        if not looked.changed and not unsettled:
            return
    raise NotIdle(f"something is due still after {_ROUNDS_MOST} looks")


def leave_pending(store: EventStore, writes: int, *, workspaces: int) -> None:
    """Write so often, spread over so many workspaces, with windows that stay open for an hour."""
    patch = PolicyPatch(quiet_ms=3_600_000, max_wait_ms=7_200_000, max_count=1_000_000_000)
    change_policy(store, _IDS, scope=DEFAULT_SCOPE, patch=patch, actor=_ACTOR)
    auto = AutoRegistration(executor="simulated", target={"delay": "0s"})
    for start in range(0, writes, _TOGETHER):
        batch = [
            Write(workspace=f"ws-{number % workspaces:06}", path="src/app.py")
            for number in range(start, min(start + _TOGETHER, writes))
        ]
        answer, _ = record_writes(store, batch, actor=_ACTOR, ids=_IDS, auto=auto)
        if answer.refused:
            raise RuntimeError(f"a write was refused: {answer.refused[0]}")


def _look(store: EventStore) -> Looked:
    return look(store, _Bell(), _IDS, free_slots=lambda: _SLOTS)


def _unsettled(store: EventStore) -> list[RestartProjection]:
    with store.read() as reader:
        return [
            record
            for state in (RestartState.QUEUED, RestartState.RETRYING)
            for record in reader.restarts(RestartFilter(state=state, limit=_TOGETHER))
        ]


def _took_ms(store: EventStore, ask: Callable[[Reader], object]) -> Iterator[float]:
    for _ in range(_TIMES // 4):
        began = time.perf_counter()
        with store.read() as reader:
            ask(reader)
        yield (time.perf_counter() - began) * 1000
