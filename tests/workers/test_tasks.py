"""Ticks inside their interval, two at once, their end; answers that are forgotten."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import CycleStarted, CycleSucceeded, RestartQueued, RestartRequested, Trigger
from orchestrator.domain.policy import parse_policy
from orchestrator.domain.state import Registration
from orchestrator.ports.store import CoreStore
from orchestrator.service.append import Author
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.operate import Operator
from orchestrator.storage.opening import open_store
from tests.history import TestClock
from tests.memory_store.store import MemoryEventStore
from tests.service.world import IDS, Bell, Scripted, drainer, events, recorded, write
from tests.waiting import wait_until
from workers.tasks import Ticker


def ticker(store: CoreStore, bell: Bell, *, tick_s: float) -> Ticker:
    return Ticker(store, bell, IDS, drainer(store, Scripted()), tick_s=tick_s)


def register(store: CoreStore, name: str = "ws", **policy: object) -> Operator:
    operator = Operator(store, IDS)
    registration = Registration(
        fleet="default", labels={}, executor="simulated", target={}, policy=parse_policy(policy)
    )
    operator.register(name, registration, Author(actor="me"))
    return operator


def test_a_tick_is_a_bell_too() -> None:
    """With ticks and bells in turn, a broker that serves two workers in turn sends one of them no bell at all."""
    store = MemoryEventStore()
    register(store, quiet=0, min_interval=0)
    write(store, "ws", "a")
    nobody_hears = Bell()
    ticker(store, nobody_hears, tick_s=0.01).tick()
    wait_until(lambda: len(events(store, CycleSucceeded)) == 1, what="a cycle of a slot of this process")
    assert nobody_hears.rung == []


def test_a_tick_sleeps_until_the_next_instant_and_folds_then() -> None:
    store, bell = MemoryEventStore(), Bell()
    register(store, quiet="120ms")
    write(store, "ws", "a")
    started_s = time.monotonic()
    ticker(store, bell, tick_s=5).tick()
    assert time.monotonic() - started_s < 4
    [queued] = recorded(store, RestartQueued)
    assert isinstance(queued.data, RestartQueued)
    assert queued.recorded_at - queued.data.due_at < timedelta(milliseconds=500)
    wait_until(lambda: len(events(store, CycleSucceeded)) == 1, what="a cycle of a slot of this process")
    [started] = recorded(store, CycleStarted)
    assert started.recorded_at == queued.recorded_at
    assert bell.rung == []
    with store.read() as reader:
        ticked_at = reader.last_tick_at()
    assert ticked_at is not None


def test_a_tick_ends_where_the_next_instant_is_beyond_its_interval() -> None:
    store, bell = MemoryEventStore(), Bell()
    register(store, quiet="60s")
    write(store, "ws", "a")
    started_s = time.monotonic()
    ticker(store, bell, tick_s=2).tick()
    assert time.monotonic() - started_s < 1
    assert bell.rung == []


def test_what_came_since_and_is_due_sooner_is_folded_by_a_tick_that_looks_again() -> None:
    store = MemoryEventStore()
    for name, quiet in (("ws", "60s"), ("sooner", "100ms")):
        register(store, name, quiet=quiet)
    ticks = ticker(store, Bell(), tick_s=300)
    assert not ticks.look_again(), "nobody is at work"
    write(store, "ws", "a")
    working = threading.Thread(target=ticks.tick)
    working.start()
    wait_until(ticks.look_again, what="a tick that sleeps until the first window is due")
    write(store, "sooner", "b")
    assert ticks.look_again()
    wait_until(lambda: len(events(store, CycleSucceeded)) == 1, what="the window that is due sooner is folded")
    ticks.stop()
    working.join()
    assert [event.workspace for event in recorded(store, RestartQueued)] == ["sooner"]


def test_a_stop_ends_a_tick_that_sleeps_and_keeps_others_from_looking() -> None:
    store, bell = MemoryEventStore(), Bell()
    register(store, quiet="20s")
    write(store, "ws", "a")
    sleeper = ticker(store, bell, tick_s=60)
    thread = threading.Thread(target=sleeper.tick)
    thread.start()
    wait_until(lambda: _ticked(store), what="a first look")
    sleeper.stop()
    thread.join(5)
    assert not thread.is_alive()
    register(store, quiet=0)
    sleeper.tick()
    assert events(store, RestartQueued) == []


def _ticked(store: CoreStore) -> bool:
    with store.read() as reader:
        return reader.last_tick_at() is not None


def test_the_second_of_two_at_once_returns() -> None:
    store = MemoryEventStore()
    register(store, quiet="20s")
    write(store, "ws", "a")
    both = ticker(store, Bell(), tick_s=60)
    first = threading.Thread(target=both.tick)
    first.start()
    wait_until(lambda: _ticked(store), what="a first look")
    started_s = time.monotonic()
    both.tick()
    assert time.monotonic() - started_s < 5
    assert first.is_alive()
    both.stop()
    first.join(5)


def test_a_tick_that_comes_has_the_sleeping_one_look_at_once_and_go_on_in_its_stead() -> None:
    store = MemoryEventStore()
    operator = register(store, quiet="20s", min_interval=0)
    write(store, "ws", "a")
    both = ticker(store, Bell(), tick_s=60)
    first = threading.Thread(target=both.tick)
    first.start()
    wait_until(lambda: _ticked(store), what="a first look")
    ask = cmd.RequestRestart(trigger=Trigger.MANUAL, reason="please")
    operator.request_restart("ws", ask, Author(actor="me"))
    both.tick()
    wait_until(lambda: len(events(store, CycleSucceeded)) == 1, what="the request is served long before the quiet")
    first.join(5)
    assert not first.is_alive()  # nothing is due any more


def test_a_database_that_is_away_is_one_line(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(sqlite_url.replace("orchestrator.db", "nowhere/orchestrator.db"))
    lost = ticker(store, Bell(), tick_s=0.1)
    lost.tick()
    lost.forget_answers()
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) == 2
    assert "tick.skipped" in said[0]
    assert "forget.skipped" in said[1]
    store.close()


def test_answers_are_forgotten_after_a_week() -> None:
    clock = TestClock()
    store = MemoryEventStore(clock)
    operator = register(store)
    ask = cmd.RequestRestart(trigger=Trigger.MANUAL, reason="please")
    key = RequestKey(key="k", fingerprint="f")

    def send() -> bool:
        return operator.request_restart("ws", ask, Author(actor="me"), key)[1]

    assert not send()
    clock.at += timedelta(days=6)
    ticker(store, Bell(), tick_s=1).forget_answers()
    assert send()
    clock.at += timedelta(days=2)
    ticker(store, Bell(), tick_s=1).forget_answers()
    assert not send()
    assert len(events(store, RestartRequested)) == 2
