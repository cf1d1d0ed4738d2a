"""What nobody serves: said by the tick, shown where it is asked for, and over once somebody is there."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.crash_points import watch
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Phase
from orchestrator.history.fate import fate_of
from orchestrator.history.why import why
from orchestrator.ports.store import CoreStore, EventStore
from orchestrator.ports.workspaces import StoredWorkspace, WorkspaceFilter
from orchestrator.service.absence import note_absences
from tests.history import START, History, TestClock
from tests.service.world import Scripted, drainer, recorded

TICK = timedelta(seconds=1)
SIMULATED = frozenset({"simulated"})


def look(history: History) -> bool:
    return note_absences(history.store, history.ids, tick=TICK)


def said(store: CoreStore) -> list[ev.EventData]:
    return [event.data for kind in (ev.ExecutorAway, ev.ExecutorBack) for event in recorded(store, kind)]


def stored(store: CoreStore) -> StoredWorkspace:
    with store.read() as reader:
        found = reader.workspace("ws")
    assert found is not None
    return found


def listed(store: CoreStore, phase: Phase) -> list[str]:
    with store.read() as reader:
        return [row.state.workspace for row in reader.workspaces(WorkspaceFilter(phase=phase))]


def queued(history: History) -> str:
    """Leave a restart queued at 15 s, whose pool is of another host; return the write."""
    history.register(pool="host-2")
    [write] = history.write("a.py")
    history.at(15)
    history.tick()
    return write.id


def test_a_restart_that_nobody_can_claim_waits_and_is_explained(history: History) -> None:
    write = queued(history)
    store = history.store
    store.note_worker("w", "host-1", Serving(executors=SIMULATED), 4)
    history.at(17)
    assert look(history) is False
    history.at(18)
    assert look(history) is True
    since = START + timedelta(seconds=15)
    assert said(store) == [ev.ExecutorAway(executor="simulated", pool="host-2", since=since)]
    assert look(history) is True
    assert len(said(store)) == 1

    assert (stored(store).phase, stored(store).unserved_since) == (Phase.UNCLAIMABLE, since)
    assert (listed(store, Phase.UNCLAIMABLE), listed(store, Phase.QUEUED)) == (["ws"], [])
    with store.read() as reader:
        assert reader.unclaimable() == 1
        sentence = "no worker serves executor simulated in pool host-2 since 2026-11-23 14:02:16"
        assert sentence in fate_of(reader, write).explanation


def test_why_says_that_nobody_serves_it(sqlite_store: EventStore, clock: TestClock) -> None:
    history = History(sqlite_store, clock)
    queued(history)
    history.at(18)
    assert look(history) is True
    restart = stored(sqlite_store).state.restart
    assert restart is not None
    with sqlite_store.read() as reader:
        explanation = why(reader, restart.id).explanation
    assert "no worker serves executor simulated in pool host-2 since 2026-11-23 14:02:16" in explanation


def test_it_goes_on_as_soon_as_somebody_is_there(history: History) -> None:
    queued(history)
    history.at(18)
    look(history)
    history.at(3_600)
    assert drainer(history.store, Scripted(), pools=["host-2"]).drain() == 1
    assert stored(history.store).phase is Phase.IDLE
    assert look(history) is False
    assert said(history.store)[1:] == [ev.ExecutorBack(executor="simulated", pool="host-2")]
    with history.store.read() as reader:
        assert (reader.away(), reader.unclaimable()) == ({}, 0)


def test_a_hold_comes_first(history: History) -> None:
    queued(history)
    history.at(18)
    look(history)
    history.change(cmd.Hold(reason="frozen"))
    assert stored(history.store).phase is Phase.HELD


def test_a_worker_that_was_seen_just_now_is_there(history: History) -> None:
    queued(history)
    history.at(3_600)
    history.store.note_worker("w", "host-2", Serving(executors=SIMULATED, pools=frozenset({"host-2"})), 4)
    assert look(history) is False
    assert said(history.store) == []


def test_who_stood_still_between_its_look_and_its_transaction_says_nothing(
    sqlite_store: EventStore, clock: TestClock
) -> None:
    """Seen by the simulator: a tick that was frozen for a minute called away who had been there all the while."""
    history = History(sqlite_store, clock)
    queued(history)
    history.at(18)

    def stand_still(name: str, events: object) -> None:
        if name == "write.begin":
            clock.at += timedelta(minutes=1)

    watch(stand_still)
    try:
        assert look(history) is False
    finally:
        watch(None)
    assert said(sqlite_store) == []
    assert look(history) is True
    assert [type(data) for data in said(sqlite_store)] == [ev.ExecutorAway]
