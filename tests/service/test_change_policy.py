"""Changing a policy layer: what is due anew, what keeps its numbers, what is not even recorded."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import PolicyChanged, RestartQueued
from orchestrator.domain.policy import Policies, Policy, PolicyPatch, parse_policy
from orchestrator.domain.state import Registration
from orchestrator.errors import PreconditionFailed, TimedOut
from orchestrator.history.replay import replay
from orchestrator.ports.store import CoreStore
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.service import change_policy as change_policy_module
from orchestrator.service import recompute, tick
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy, note_floor
from orchestrator.service.operate import Operator
from orchestrator.service.recompute import save_if_moved
from orchestrator.service.record import Write, record_writes
from orchestrator.service.tick import Looked, Seen, look, look_at
from tests.history import START, History
from tests.service.world import IDS, SIMULATED, Bell, at_once, events, write
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


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch) -> None:
    """One window a page, and one page at once: the others are left to the ticks."""
    monkeypatch.setattr(recompute, "WINDOWS_A_PAGE", 1)
    monkeypatch.setattr(change_policy_module, "_PAGES_AT_ONCE", 1)


def look_once(history: History) -> Looked:
    return look(history.store, Bell(), history.ids, free_slots=lambda: 1)


def opened(history: History, *names: str) -> None:
    for name in names:
        history.register(name)
        history.write("p", workspace=name)


@pytest.mark.usefixtures("paged")
def test_windows_that_a_change_did_not_come_to_follow_it_at_the_ticks(history: History) -> None:
    opened(history, *"abcdef")
    change(history, "default", quiet="9s")
    followed = [due_at(history, name) == START + timedelta(seconds=9) for name in "abcdef"]
    assert followed == [True] + 5 * [False]
    assert replay(history.store).differences == ()
    assert look_once(history).next_at == START  # there is more to do at once
    assert replay(history.store).differences == ()
    assert look_once(history).next_at == START + timedelta(seconds=9)
    assert {due_at(history, name) for name in "abcdef"} == {START + timedelta(seconds=9)}
    assert replay(history.store).differences == ()


@pytest.mark.usefixtures("paged")
def test_a_replay_sees_a_due_that_is_wrong_beside_those_that_are_not_recomputed_yet(history: History) -> None:
    opened(history, *"abc")
    change(history, "fleet:other", quiet="9s")
    change(history, "default", quiet="9s")
    with history.store.write(["a"]) as transaction:
        state = history.state("a")
        transaction.save([StoredWorkspace(state=state, due_at=START)])
    assert [difference.id for difference in replay(history.store).differences] == ["a"]
    change(history, "default", quiet="8s")
    assert replay(history.store).differences == ()


@pytest.mark.usefixtures("paged")
def test_a_window_that_is_due_by_the_policy_of_before_waits_for_the_new_one(history: History) -> None:
    opened(history, *"ab")
    change(history, "default", quiet="40s", max_wait="50s")
    assert due_at(history, "b") == START + timedelta(seconds=15)
    history.at(16)
    assert look_at(history.store, history.ids, ["b"]) == {"b": Seen.NOTHING}
    assert due_at(history, "b") == START + timedelta(seconds=40)


@pytest.mark.usefixtures("paged")
def test_a_layer_that_is_changed_again_begins_anew(history: History) -> None:
    opened(history, *"abc")
    change(history, "default", quiet="9s")
    change(history, "default", quiet="5s")
    look_once(history)
    assert {due_at(history, name) for name in "abc"} == {START + timedelta(seconds=5)}


def test_a_change_is_answered_though_its_windows_cannot_follow_now(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **named: object) -> bool:
        raise TimedOut("a row stays locked")

    opened(history, "a")
    with monkeypatch.context() as patch:
        patch.setattr(change_policy_module, "recompute", refuse)
        change(history, "default", quiet="9s")
    assert due_at(history, "a") == START + timedelta(seconds=15)
    look_once(history)
    assert due_at(history, "a") == START + timedelta(seconds=9)


def test_a_row_that_stays_locked_ends_no_look(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> bool:
        raise TimedOut("a row stays locked")

    opened(history, "a")
    monkeypatch.setattr(change_policy_module, "recompute", refuse)
    monkeypatch.setattr(tick, "recompute", refuse)
    change(history, "default", quiet="9s")
    assert look_once(history).next_at == START + timedelta(seconds=15)


def test_a_window_that_cannot_be_worked_out_keeps_no_other_from_following(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(tx: Transaction, stored: StoredWorkspace, policies: Policies) -> None:
        if stored.state.workspace == "b":
            raise ArithmeticError("a duration of a million years")
        save_if_moved(tx, stored, policies)

    opened(history, *"abc")
    monkeypatch.setattr(recompute, "save_if_moved", save)
    change(history, "default", quiet="9s")
    after = [START + timedelta(seconds=seconds) for seconds in (9, 15, 9)]
    assert [due_at(history, name) for name in "abc"] == after
    with history.store.read() as reader:
        assert reader.recomputations() == []
    monkeypatch.undo()
    change(history, "default", quiet="8s")
    assert due_at(history, "b") == START + timedelta(seconds=8)


def test_a_change_locks_a_page_of_windows_at_a_time(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes waits for a page, never for all windows that are open."""
    held: list[int] = []

    def commit(store: CoreStore, unit: Unit[Any]) -> Any:
        held.append(len(unit.workspaces))
        return commit_as_ever(store, unit)

    names = [f"ws-{number:03}" for number in range(2 * recompute.WINDOWS_A_PAGE + 7)]
    writes = [Write(workspace=name, path="a") for name in names]
    record_writes(history.store, writes, actor="me", ids=IDS, auto=SIMULATED)
    commit_as_ever = type(history.store).commit
    monkeypatch.setattr(type(history.store), "commit", commit)
    change(history, "default", quiet="3s")
    assert held == [0, recompute.WINDOWS_A_PAGE, recompute.WINDOWS_A_PAGE, 7]
    assert {due_at(history, name) for name in names} == {START + timedelta(seconds=3)}
