"""Changing a policy layer: what is due anew, what keeps its numbers, what is not even recorded."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import PolicyChanged, RestartQueued
from orchestrator.domain.policy import Policy, PolicyPatch, parse_policy
from orchestrator.domain.state import Registration
from orchestrator.errors import PreconditionFailed
from orchestrator.ports.store import CoreStore
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy, note_floor
from orchestrator.service.operate import Operator
from orchestrator.service.record import Write, record_writes
from tests.history import START, History
from tests.service.world import IDS, SIMULATED, at_once, events, write
from tests.waiting import wait_until


def change(history: History, scope: str, expected: int | None = None, **policy: object) -> int:
    layer = change_policy(
        history.store, history.ids, scope=scope, patch=parse_policy(policy), actor="me", expected_version=expected
    )
    return layer.version


def due_at(history: History, workspace: str) -> datetime | None:
    with history.store.read() as reader:
        stored = reader.workspace(workspace)
    assert stored is not None
    return stored.due_at


def test_open_windows_of_its_scope_are_due_anew(history: History) -> None:
    for name, fleet in (("a", "one"), ("b", "one"), ("c", "two")):
        history.register(name, fleet=fleet)
        history.write("p", workspace=name)
    history.register("own", fleet="one", quiet="7s")
    history.write("p", workspace="own")
    change(history, "fleet:one", quiet="3s")
    at = [due_at(history, name) for name in ("a", "b", "c", "own")]
    assert at == [START + timedelta(seconds=seconds) for seconds in (3, 3, 15, 7)]
    change(history, "default", quiet="5s", max_wait="4s")
    at = [due_at(history, name) for name in ("a", "b", "c", "own")]
    assert at == [START + timedelta(seconds=seconds) for seconds in (3, 3, 4, 4)]


def test_idle_and_held_workspaces_stay_so(history: History) -> None:
    history.register("idle")
    history.register("held")
    history.write("p", workspace="held")
    history.change(cmd.Hold(reason="deploy"), "held")
    change(history, "default", quiet="3s")
    assert (due_at(history, "idle"), due_at(history, "held")) == (None, None)
    history.change(cmd.Release(reason="done"), "held")
    assert due_at(history, "held") == START + timedelta(seconds=3)


def test_a_queued_restart_keeps_its_numbers(history: History) -> None:
    history.register()
    history.write("p")
    history.at(15)
    history.queued()
    change(history, "default", quiet="3s", min_interval="1s")
    restart = history.state().restart
    assert restart is not None
    assert restart.ready_at == START + timedelta(seconds=15)
    [queued] = events(history.store, RestartQueued)
    assert (queued.quiet_ms, queued.min_interval_ms) == (15_000, 60_000)


def test_a_retry_keeps_its_instant(history: History) -> None:
    history.register()
    history.write("p")
    history.at(15)
    history.queued()
    history.start()
    history.fail("no")
    before = history.state().restart
    change(history, "default", retry_backoff="1s")
    assert history.state().restart == before


def test_a_lower_max_count_is_reached_at_once(history: History) -> None:
    history.register()
    history.write("a", "b", "c")
    history.at(2)
    change(history, "default", max_count=3)
    assert due_at(history, "ws") == START


def test_the_same_again_is_no_event(history: History) -> None:
    before = len(events(history.store, PolicyChanged))
    version = change(history, "default", quiet="3s")
    assert change(history, "default", quiet="3s") == version
    assert change(history, "default", quiet="3000ms") == version
    assert len(events(history.store, PolicyChanged)) == before + 1


def test_versions_rise_over_all_scopes(history: History) -> None:
    first = change(history, "default", quiet="3s")
    second = change(history, "fleet:a", quiet="3s")
    assert first < second < change(history, "default", quiet="4s")


def test_if_match(history: History) -> None:
    with pytest.raises(PreconditionFailed, match="version 0"):
        change(history, "default", expected=1, quiet="3s")
    version = change(history, "default", expected=0, quiet="3s")
    with pytest.raises(PreconditionFailed, match="read it again"):
        change(history, "default", expected=0, quiet="4s")
    assert change(history, "default", expected=version, quiet="4s") > version


def test_if_match_lets_one_of_two_through(shared_store: CoreStore) -> None:
    def put(quiet_ms: int) -> str:
        try:
            change_policy(
                shared_store,
                IDS,
                scope="default",
                patch=PolicyPatch(quiet_ms=quiet_ms),
                actor="me",
                expected_version=0,
            )
        except PreconditionFailed:
            return "refused"
        return "changed"

    assert sorted(at_once([lambda: put(1), lambda: put(2)])) == ["changed", "refused"]


def test_the_floor_is_recorded_only_when_it_differs(history: History) -> None:
    assert len(events(history.store, PolicyChanged)) == 1  # the history's own
    note_floor(history.store, history.ids, Policy())
    assert len(events(history.store, PolicyChanged)) == 1
    layer = note_floor(history.store, history.ids, replace(Policy(), quiet_ms=2_000, max_concurrent=3))
    note_floor(history.store, history.ids, replace(Policy(), quiet_ms=2_000, max_concurrent=3))
    assert [event.policy_version for event in events(history.store, PolicyChanged)] == [1, layer.version]
    history.register()
    assert history.write("p")[0].due_at == START + timedelta(seconds=2)


def test_the_floor_lies_below_everything(history: History) -> None:
    change(history, "default", quiet="3s")
    note_floor(history.store, history.ids, replace(Policy(), quiet_ms=9_000))
    history.register()
    assert history.write("p")[0].due_at == START + timedelta(seconds=3)


def test_no_window_keeps_an_old_due_under_writers(shared_store: CoreStore) -> None:
    """The fixture compares every row's due with its state under the last policy."""
    names = [f"ws-{number}" for number in range(8)]
    stop = threading.Event()

    def keep_writing(mine: list[str]) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            write(shared_store, mine[count % len(mine)], f"p{count}")

    writers = [threading.Thread(target=keep_writing, args=(names[start::2],)) for start in range(2)]
    for writer in writers:
        writer.start()
    try:
        wait_until(lambda: _exists(shared_store, names[-1]), what="windows open")
        for quiet_s in range(1, 9):
            change_policy(shared_store, IDS, scope="default", patch=PolicyPatch(quiet_ms=quiet_s * 100_000), actor="me")
    finally:
        stop.set()
        for writer in writers:
            writer.join(10)


def _exists(store: CoreStore, workspace: str) -> bool:
    with store.read() as reader:
        return reader.workspace(workspace) is not None


def test_a_workspace_that_changes_its_fleet_meanwhile(shared_store: CoreStore) -> None:
    """Whichever comes first, its window follows the policy of the fleet it is in at the end (the fixture checks)."""
    operator = Operator(shared_store, IDS)

    def move(fleet: str) -> None:
        registration = Registration(fleet=fleet, labels={}, executor="simulated", target={}, policy=PolicyPatch())
        operator.register("ws", registration, Author(actor="me"))

    move("one")
    write(shared_store, "ws", "p")
    for round_number in range(1, 9):
        patch = PolicyPatch(quiet_ms=round_number * 1_000_000)
        fleet = ("one", "two")[round_number % 2]
        at_once(
            [
                lambda fleet=fleet: move(fleet),  # type: ignore[misc]
                lambda patch=patch: change_policy(shared_store, IDS, scope="fleet:one", patch=patch, actor="me"),  # type: ignore[misc]
                lambda patch=patch: change_policy(shared_store, IDS, scope="fleet:two", patch=patch, actor="me"),  # type: ignore[misc]
            ]
        )


def test_thousands_of_open_windows(history: History) -> None:
    names = [f"ws-{number}" for number in range(300)]
    writes = [Write(workspace=name, path="a") for name in names]
    record_writes(history.store, writes, actor="me", ids=IDS, auto=SIMULATED)
    change(history, "default", quiet="3s")
    assert due_at(history, "ws-299") == START + timedelta(seconds=3)
