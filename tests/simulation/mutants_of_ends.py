"""Defects planted in how the ends of cycles and the next starts share a commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.ports.transaction import Transaction
from orchestrator.service import drain
from orchestrator.service.claim import Claimer, EndedAndStarted
from orchestrator.service.cycle_end import CycleEnd
from tests.simulation.planting import Planting

_end_and_start_held, _record = Claimer._end_and_start_held, drain.Drainer._record


def started_though_not_ended(planting: Planting) -> None:
    def end_and_start_held(
        claimer: Claimer,
        tx: Transaction,
        ends: Sequence[CycleEnd],
        ready: Sequence[str],
        most: int,
        iterations: Mapping[str, int],
    ) -> EndedAndStarted:
        done = _end_and_start_held(claimer, tx, ends, ready, most, iterations)
        done.recorded = [True] * len(ends)
        return done

    planting.name(Claimer, "_end_and_start_held", end_and_start_held)


def end_lost_without_claim(planting: Planting) -> None:
    def end_and_start_held(
        claimer: Claimer,
        tx: Transaction,
        ends: Sequence[CycleEnd],
        ready: Sequence[str],
        most: int,
        iterations: Mapping[str, int],
    ) -> EndedAndStarted:
        if not ready:
            return EndedAndStarted(recorded=[True] * len(ends))
        return _end_and_start_held(claimer, tx, ends, ready, most, iterations)

    planting.name(Claimer, "_end_and_start_held", end_and_start_held)


def shared_end_tried_once(planting: Planting) -> None:
    def record(drainer: drain.Drainer, end: CycleEnd, failed: BaseException | None = None) -> None:
        if failed is None:
            _record(drainer, end)

    planting.name(drain.Drainer, "_record", record)


def shared_end_not_asked_for(planting: Planting) -> None:
    planting.name(drain.Drainer, "_record", lambda drainer, end, failed=None: _record(drainer, end))


def only_first_end_recorded(planting: Planting) -> None:
    def end_and_start_held(
        claimer: Claimer,
        tx: Transaction,
        ends: Sequence[CycleEnd],
        ready: Sequence[str],
        most: int,
        iterations: Mapping[str, int],
    ) -> EndedAndStarted:
        done = _end_and_start_held(claimer, tx, ends[:1], ready, most, iterations)
        done.recorded *= len(ends)
        return done

    planting.name(Claimer, "_end_and_start_held", end_and_start_held)
