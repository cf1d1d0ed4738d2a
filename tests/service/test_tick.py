"""One look by the coalescer: what it folds, releases, rescues and rings for, and what cannot stop it."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import psycopg
import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import (
    Cause,
    CycleAbandoned,
    RestartGaveUp,
    RestartQueued,
    WorkspaceReleased,
)
from orchestrator.domain.policy import parse_policy
from orchestrator.domain.state import Registration
from orchestrator.errors import StorageUnavailable
from orchestrator.ports.store import CoreStore
from orchestrator.service.append import Author
from orchestrator.service.operate import Operator
from orchestrator.service.record import Write, record_writes
from orchestrator.service.tick import Looked, Seen, look, look_at
from orchestrator.storage.opening import open_store
from tests.history import START, History, TestClock
from tests.service.damage import damaged
from tests.service.world import IDS, SIMULATED, Bell, at_once, events, write
from tests.waiting import wait_until


def look_once(history: History, bell: Bell | None = None, free: int = 4) -> Looked:
    return look(history.store, bell or Bell(), history.ids, free_slots=lambda: free)


def register(store: CoreStore, workspace: str, **policy: object) -> None:
    registration = Registration(
        fleet="default", labels={}, executor="simulated", target={}, policy=parse_policy(policy)
    )
    Operator(store, IDS).register(workspace, registration, Author(actor="me"))


def test_nothing_earlier_than_due(history: History) -> None:
    history.register()
    history.write("a.py")
    history.at(14.999999)
    looked = look_once(history)
    assert (looked.changed, looked.next_at) == (0, START + timedelta(seconds=15))
    history.at(15)
    assert look_once(history).changed == 1
    [queued] = events(history.store, RestartQueued)
    assert (queued.cause, queued.due_at, queued.writes) == (Cause.QUIET, START + timedelta(seconds=15), 1)


def test_files_counts_distinct_paths_that_ask_for_a_restart(history: History) -> None:
    history.register(rules=[{"match": ["docs/**"], "action": "record"}])
    history.write("a", "b", "a", "docs/x", "a")
    history.at(15)
    look_once(history)
    [queued] = events(history.store, RestartQueued)
    assert (queued.writes, queued.files) == (4, 2)


def test_a_hold_is_released_when_its_end_has_passed(history: History) -> None:
    history.register()
    history.write("a", "b")
    history.change(cmd.Hold(reason="deploy", until=START + timedelta(seconds=30)))
    history.at(29)
    assert look_once(history).changed == 0
    history.at(30)
    looked = look_once(history)
    assert looked.changed == 1
    assert len(events(history.store, WorkspaceReleased)) == 1
    assert [(queued.writes, queued.files) for queued in events(history.store, RestartQueued)] == [(2, 2)]


def test_a_passed_lease_is_rescued_and_rung_for_in_the_same_look(history: History) -> None:
    history.register()
    history.write("a")
    history.at(15)
    history.queued()
    history.start()
    bell = Bell()
    history.at(44)
    assert look_once(history, bell).changed == 0
    history.at(45)
    assert look_once(history, bell).changed == 1
    assert bell.rung == ["ws"]
    assert [abandoned.reason for abandoned in events(history.store, CycleAbandoned)] == ["lease_expired"]


def test_a_rescue_that_gives_up_folds_what_was_asked_for_meanwhile(history: History) -> None:
    history.register(max_attempts=1)
    history.write("a", "b")
    history.at(15)
    history.queued()
    history.start()
    history.request("please")
    history.at(45)
    look_once(history)
    assert len(events(history.store, RestartGaveUp)) == 1
    assert [(queued.cause, queued.files) for queued in events(history.store, RestartQueued)][1:] == [(Cause.MANUAL, 2)]


def test_two_looks_at_once_fold_once(shared_store: CoreStore) -> None:
    for number in range(12):
        register(shared_store, f"ws-{number}", quiet=0)
        write(shared_store, f"ws-{number}", "a")
    looks = at_once([lambda: look(shared_store, Bell(), IDS, free_slots=lambda: 1) for _ in range(3)])
    assert sum(looked.changed for looked in looks) == 12
    assert len(events(shared_store, RestartQueued)) == 12


def test_five_hundred_in_one_look(history: History) -> None:
    names = [f"ws-{number:03}" for number in range(500)]
    record_writes(
        history.store, [Write(workspace=name, path="a") for name in names], actor="me", ids=IDS, auto=SIMULATED
    )
    history.at(15)
    bell = Bell()
    looked = look_once(history, bell, free=4)
    assert looked.changed == 500
    assert bell.rung == names[:8]
    assert look_once(history).changed == 0


@pytest.mark.parametrize(("free", "rung"), [(0, 2), (1, 2), (2, 4), (100, 5)])
def test_it_rings_for_the_longest_ready_first_and_not_too_often(history: History, free: int, rung: int) -> None:
    for number in reversed(range(5)):
        history.at(4 - number)
        write(history.store, f"ws-{number}", "a")
    history.at(30)
    bell = Bell()
    assert look_once(history, bell, free).rung == rung
    assert bell.rung == ["ws-4", "ws-3", "ws-2", "ws-1", "ws-0"][:rung]


def test_a_broker_that_is_away_loses_nothing(history: History) -> None:
    history.register()
    history.write("a")
    history.at(15)
    bell = Bell(away=True)
    looked = look_once(history, bell)
    assert (looked.changed, looked.rung) == (1, 0)
    bell.away = False
    assert look_once(history, bell).rung == 1


def test_one_damaged_workspace_stops_nobody_else(
    sqlite_store: CoreStore, sqlite_url: str, clock: TestClock, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(120):  # more than a page, the damaged one first
        write(sqlite_store, f"ws-{number:03}", "a")
    bell = Bell()
    clock.at = START + timedelta(seconds=15)
    with damaged(sqlite_url, "ws-000"):
        looked = look(sqlite_store, bell, IDS, free_slots=lambda: 1)
        assert (looked.changed, looked.failed) == (119, 1)
        assert "ws-000" not in bell.rung
        assert look(sqlite_store, bell, IDS, free_slots=lambda: 1).failed == 1
    assert look(sqlite_store, bell, IDS, free_slots=lambda: 1).changed == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "tick.failed" in line]
    assert len(said) == 2
    assert all("ws-000" in line for line in said)


def test_a_row_that_another_holds_is_waited_for_at_the_end(postgres_store: CoreStore, postgres_url: str) -> None:
    for name in ("busy", "free"):
        register(postgres_store, name, quiet=0)
        write(postgres_store, name, "a")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM workspaces WHERE id = 'busy' FOR UPDATE")
        rung: list[str] = []

        class Releasing:
            def ring(self, workspace: str) -> None:
                rung.append(workspace)
                other.rollback()

        looked = look(postgres_store, Releasing(), IDS, free_slots=lambda: 1)
    assert looked.changed == 2
    assert rung == ["free", "busy"]


def test_a_row_that_is_held_for_long_does_not_end_the_look(
    postgres_store: CoreStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    register(postgres_store, "busy", quiet=0)
    write(postgres_store, "busy", "a")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM workspaces WHERE id = 'busy' FOR UPDATE")
        assert look(postgres_store, Bell(), IDS, free_slots=lambda: 1).changed == 0
    assert "tick.passed_over" in capsys.readouterr().out
    assert look(postgres_store, Bell(), IDS, free_slots=lambda: 1).changed == 1


def test_a_workspace_under_constant_writes_is_folded_in_time(postgres_store: CoreStore) -> None:
    register(postgres_store, "hot", quiet="400ms", max_wait="500ms", min_interval=0)
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            write(postgres_store, "hot", "a")

    writers = [threading.Thread(target=keep_writing) for _ in range(6)]
    for writer in writers:
        writer.start()
    try:
        started_s = time.monotonic()
        wait_until(
            lambda: look(postgres_store, Bell(), IDS, free_slots=lambda: 1).changed,
            what="the hot workspace folded",
            every_s=0.05,
        )
        assert time.monotonic() - started_s < 2.5
    finally:
        stop.set()
        for writer in writers:
            writer.join(10)


def test_a_look_at_nobody_says_so(history: History) -> None:
    history.register()
    assert look_at(history.store, history.ids, ["ws"]) == {"ws": Seen.NOTHING}


def test_a_store_that_is_away_ends_the_look(sqlite_url: str) -> None:
    store = open_store(sqlite_url.replace("orchestrator.db", "nowhere/orchestrator.db"))
    with pytest.raises(StorageUnavailable):
        look(store, Bell(), IDS, free_slots=lambda: 1)
    store.close()
