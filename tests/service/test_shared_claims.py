"""Slots that look for work at the same time: one claim for all of them, each gets a cycle of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.domain.events import CycleStarted, CycleSucceeded
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import StorageUnavailable
from orchestrator.ports.store import CoreStore
from orchestrator.ports.unit import Unit
from orchestrator.service import claim as claim_module
from orchestrator.service.claim import NO_ITERATIONS, Claim, Claimer, EndedAndStarted
from orchestrator.service.cycle_end import CycleEnd
from orchestrator.service.shared_claims import SharedClaims
from tests.service.test_drain_together import queue
from tests.service.world import Scripted, drainer, events
from tests.waiting import wait_until


class Gated:
    """A claimer that notes for how many it was asked, and whose first claim waits for leave."""

    def __init__(self, claimer: Claimer) -> None:
        self._claimer = claimer
        self.asked: list[int] = []
        self.iterations: list[Mapping[str, int]] = []
        self.leave = threading.Event()
        self.error: Exception | None = None

    def claim_oldest(self, most: int = 1, iterations: Mapping[str, int] = NO_ITERATIONS) -> list[Claim]:
        self.asked.append(most)
        self.iterations.append(iterations)
        if len(self.asked) == 1:
            assert self.leave.wait(10)
        if self.error is not None:
            raise self.error
        return self._claimer.claim_oldest(most, iterations)

    def end_and_start(
        self, ends: Sequence[CycleEnd], most: int, iterations: Mapping[str, int], *, others_look: bool = False
    ) -> EndedAndStarted:
        raise AssertionError("nothing ends here")


def gated(store: CoreStore) -> tuple[Gated, SharedClaims]:
    claimer = drainer(store, Scripted(), slots=8)._claims._claimer
    assert isinstance(claimer, Claimer)
    gate = Gated(claimer)
    return gate, SharedClaims(gate)


def ask_while_one_claims(
    pool: ThreadPoolExecutor, gate: Gated, shared: SharedClaims, others: int
) -> list[Future[Claim | None]]:
    asked = [pool.submit(shared.next)]
    wait_until(lambda: gate.asked, what="the first one claims")
    asked += [pool.submit(shared.next, f"ws-{number}", number) for number in range(others)]
    wait_until(lambda: len(shared._asks) == others, what="the others wait")
    return asked


def test_whoever_asks_while_one_claims_shares_the_next_claim(shared_store: CoreStore) -> None:
    names = [f"ws-{number}" for number in range(8)]
    queue(shared_store, *names)
    gate, shared = gated(shared_store)
    with ThreadPoolExecutor(8) as pool:
        asked = ask_while_one_claims(pool, gate, shared, 7)
        gate.leave.set()
        claims = [one.result(10) for one in asked]
    assert gate.asked == [1, 7]
    assert sorted(claim.state.workspace for claim in claims if claim is not None) == names
    assert len(events(shared_store, CycleStarted)) == 8
    assert gate.iterations[1] == {f"ws-{number}": number for number in range(7)}
    drained = {claim.state.workspace: claim.started.iteration for claim in claims[1:] if claim is not None}
    assert drained == {name: int(name[3:]) + 1 for name in drained if name != "ws-7"} | {
        name: 1 for name in drained if name == "ws-7"
    }


def test_where_less_may_start_than_ask_the_rest_get_none(shared_store: CoreStore) -> None:
    queue(shared_store, "ws-0", "ws-1")
    gate, shared = gated(shared_store)
    with ThreadPoolExecutor(6) as pool:
        asked = ask_while_one_claims(pool, gate, shared, 5)
        gate.leave.set()
        claims = [one.result(10) for one in asked]
    assert sorted(claim.state.workspace for claim in claims if claim is not None) == ["ws-0", "ws-1"]
    assert claims.count(None) == 4


def test_all_who_shared_it_are_told_of_an_error_and_the_next_claim_goes_on(shared_store: CoreStore) -> None:
    queue(shared_store, "ws-0")
    gate, shared = gated(shared_store)
    with ThreadPoolExecutor(4) as pool:
        asked = ask_while_one_claims(pool, gate, shared, 3)
        gate.error = StorageUnavailable("away")
        gate.leave.set()
        errors = [one.exception(10) for one in asked]
    assert [type(error) for error in errors] == [StorageUnavailable] * 4
    gate.error = None
    found = shared.next()
    assert found is not None
    assert found.state.workspace == "ws-0"


def test_a_defect_of_one_workspace_starts_all_others(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_served(state: WorkspaceState, serving: object) -> bool:
        if state.workspace == "ws-1":
            raise ArithmeticError("a duration of a million years")
        return True

    queue(shared_store, *(f"ws-{number}" for number in range(4)))
    monkeypatch.setattr(claim_module, "is_served", is_served)
    worker = drainer(shared_store, Scripted(), slots=4)
    claims = worker._claims._claimer.claim_oldest(4)
    assert sorted(claim.state.workspace for claim in claims) == ["ws-0", "ws-2", "ws-3"]
    assert len(events(shared_store, CycleStarted)) == 3
    assert "claim.split" in capsys.readouterr().out
    assert events(shared_store, CycleSucceeded) == []


@pytest.mark.parametrize("defect", [False, True])
def test_what_is_started_is_returned_though_the_rest_failed(
    shared_store: CoreStore, monkeypatch: pytest.MonkeyPatch, defect: bool
) -> None:
    """Otherwise its lease would be nobody's, and it would wait until that has passed."""
    commit, calls = type(shared_store).commit, 0

    def failing(store: CoreStore, unit: Unit[Any]) -> Any:
        nonlocal calls
        calls += unit.name == "claim"
        if defect and calls == 1:
            raise ArithmeticError("of one of them")
        if calls == 2 + defect:
            raise StorageUnavailable("away")
        return commit(store, unit)

    queue(shared_store, "ws-0", "ws-1", "ws-2")
    worker = drainer(shared_store, Scripted(), slots=3)
    ready = Claimer._ready
    if not defect:  # two looks are needed: the first one sees one workspace only
        monkeypatch.setattr(Claimer, "_ready", lambda claimer, search, wanted: ready(claimer, search, wanted)[:1])
    monkeypatch.setattr(type(shared_store), "commit", failing)
    claims = worker._claims._claimer.claim_oldest(3)
    assert [claim.started.cycle for claim in claims] == [event.cycle for event in events(shared_store, CycleStarted)]
    assert len(claims) == 1
