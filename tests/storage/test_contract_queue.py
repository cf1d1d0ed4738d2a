"""What every store promises of the queue: open windows, due and ready workspaces, leases, heartbeats, what waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from orchestrator.domain.policy import Mode, PolicyLayer, PolicyPatch
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Hold, Phase, WorkspaceState
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import Backlog, CoreStore, Counters, EventStore
from orchestrator.ports.transaction import Running
from orchestrator.ports.workspaces import StoredWorkspace
from tests.storage.conftest import SetClock
from tests.storage.samples import (
    NOON,
    at,
    cycle,
    file_written,
    leased,
    log,
    open_window,
    put,
    registration,
    state,
    unsettled,
)


def running(workspace: str, lease_until: datetime, fence: int = 1, fleet: str = "", **more: Any) -> StoredWorkspace:
    return leased(state(workspace, fleet, fence=fence, restart=unsettled(running=cycle()), **more), lease_until)


def test_open_windows_come_in_pages_by_id(store: CoreStore) -> None:
    put(store, state("blue-2", "blue"), state("blue-1", "blue"), state("red", "red"), due_at=at(5))
    put(store, state("blue-closed", "blue"))
    with store.read() as reader:
        assert reader.open_windows("blue", "", 10) == ["blue-1", "blue-2"]
        assert reader.open_windows(None, "", 2) == ["blue-1", "blue-2"]
        assert reader.open_windows(None, "blue-2", 2) == ["red"]
        assert reader.open_windows("green", "", 10) == []


def test_how_far_windows_follow_a_layer_is_kept_until_all_do(store: CoreStore) -> None:
    def change(version: int, scope: str = "default") -> Recomputation:
        with store.write() as transaction:
            transaction.save_policy(PolicyLayer(scope=scope, policy=PolicyPatch(quiet_ms=version), version=version))
        return Recomputation(scope=scope, version=version)

    def note(done: Recomputation, to: str | None) -> list[Recomputation]:
        with store.write() as transaction:
            transaction.note_recomputed(done, to)
        with store.read() as reader:
            unfinished = reader.recomputations()
            assert reader.outlook(1, 1).recomputes == bool(unfinished)
            return unfinished

    first, fleet = change(1), change(2, "fleet:blue")
    assert note(first, "m") == [Recomputation(scope="default", version=1, to="m"), fleet]
    assert note(first, "c") == [Recomputation(scope="default", version=1, to="m"), fleet]  # another has gone on
    assert note(fleet, None) == [Recomputation(scope="default", version=1, to="m")]
    again = change(3)
    assert note(Recomputation(scope="default", version=1, to="m"), None) == [again]  # changed meanwhile
    assert note(again, None) == []
    assert note(again, "m") == []


def test_a_step_that_fails_notes_nothing(store: CoreStore) -> None:
    def fail() -> None:
        with transaction.part():
            transaction.save_policy(PolicyLayer(scope="default", policy=PolicyPatch(), version=1))
            raise LookupError

    with store.write() as transaction, pytest.raises(LookupError):
        fail()
    with store.read() as reader:
        assert reader.recomputations() == []


def test_only_what_a_worker_serves_is_ready_for_it(clocked_store: CoreStore) -> None:
    def ready(workspace: str, pool: str | None, executor: str = "simulated") -> WorkspaceState:
        said = structs.replace(registration(), executor=executor, target={} if pool is None else {"pool": pool})
        return structs.replace(state(workspace, restart=unsettled(at(-1))), registration=said)

    put(clocked_store, ready("a", None), ready("b", "blue"), ready("c", None, "command"), ready("d", "blue", "command"))
    put(clocked_store, ready("e", None, "process"))
    served = {
        ("simulated", "default"): ["a"],
        ("simulated", "blue"): ["b"],
        ("command", "default"): ["c"],
        ("process", "default"): [],
        ("process", "up"): ["e"],
    }
    with clocked_store.read() as reader:
        assert reader.ready_workspaces(9) == ["a", "b", "c", "d", "e"]
        for (executor, pool), expected in served.items():
            serving = Serving(executors=frozenset({executor}), pools=frozenset({pool}))
            assert reader.ready_workspaces(9, serving=serving) == expected
        both = Serving(executors=frozenset({"simulated", "command"}), pools=frozenset({"default", "blue"}))
        assert reader.ready_workspaces(9, serving=both) == ["a", "b", "c", "d"]


def test_what_the_tick_has_to_do_oldest_first(clocked_store: CoreStore) -> None:
    put(clocked_store, state("due"), due_at=at(-3))
    put(clocked_store, state("due-now"), due_at=NOON)
    put(clocked_store, state("due-later"), due_at=at(0.000001))
    put(clocked_store, state("held-passed", hold=Hold(reason="r", until=at(-2))))
    put(
        clocked_store,
        state("held-on", hold=Hold(reason="r", until=at(2))),
        state("held", hold=Hold(reason="r", until=None)),
    )
    put(clocked_store, running("lease-passed", at(-1)), running("lease-on", at(1)))
    both = running("both", at(-4), hold=Hold(reason="r", until=at(-1.5)))
    put(clocked_store, both)
    with clocked_store.read() as reader:
        assert reader.due_workspaces(10) == ["both", "due", "held-passed", "lease-passed", "due-now"]
        assert reader.due_workspaces(2) == ["both", "due"]
        assert reader.next_instant() == at(0.000001)


def test_the_next_instant_is_the_earliest_of_all_kinds(clocked_store: CoreStore, set_clock: SetClock) -> None:
    with clocked_store.read() as reader:
        assert reader.next_instant() is None
    put(clocked_store, state("due"), due_at=at(4))
    put(clocked_store, state("held", hold=Hold(reason="r", until=at(3))))
    put(clocked_store, running("running", at(2)), state("ready", restart=unsettled(at(1))))
    for expected in (at(1), at(2), at(3), at(4), None):
        with clocked_store.read() as reader:
            assert reader.next_instant() == expected
        set_clock.step(1)


def test_the_longest_ready_first(clocked_store: CoreStore) -> None:
    put(clocked_store, state("b", restart=unsettled(at(-1))), state("a", restart=unsettled(at(-2))))
    put(clocked_store, state("now", restart=unsettled(NOON)), state("later", restart=unsettled(at(0.000001))))
    put(
        clocked_store,
        running("running", at(5)),
        state("held", restart=unsettled(at(-9)), hold=Hold(reason="r", until=None)),
    )
    with clocked_store.read() as reader:
        assert reader.ready_workspaces(10) == ["a", "b", "now"]
        assert reader.ready_workspaces(1) == ["a"]


def test_fleets_that_are_full_are_passed_over(clocked_store: CoreStore) -> None:
    put(clocked_store, state("a", "full", restart=unsettled(at(-2))), state("b", "free", restart=unsettled(at(-1))))
    with clocked_store.read() as reader:
        assert reader.ready_workspaces(1) == ["a"]
        assert reader.ready_workspaces(1, except_fleets={"full"}) == ["b"]
        assert reader.ready_workspaces(1, except_fleets={"full", "free"}) == []


def capped(store: CoreStore, **most: int | None) -> None:
    """Set the caps of layers, by scope; a fleet's as ``fleet_NAME``."""
    with store.write() as transaction:
        for number, (scope, cap) in enumerate(most.items()):
            patch = PolicyPatch(max_concurrent=cap, quiet_ms=number)
            layer = PolicyLayer(scope=scope.replace("_", ":"), policy=patch, version=number + 1)
            transaction.save_policy(layer)


def waiting(workspace: str, fleet: str, seconds: float, own: int | None = None) -> WorkspaceState:
    """Return a workspace whose restart is ready since then, with its own cap."""
    said = structs.replace(registration(fleet), policy=PolicyPatch(max_concurrent=own, mode=Mode.SHADOW))
    return structs.replace(state(workspace, fleet, restart=unsettled(at(seconds))), registration=said)


def test_what_has_no_room_is_not_ready(store: CoreStore) -> None:
    capped(store, fleet_one=1, fleet_two=2, fleet_open=None)
    for fleet in ("one", "two", "open"):
        put(store, running(f"{fleet}-runs", at(900), fleet=fleet))
        put(store, waiting(f"{fleet}-waits", fleet, -9), waiting(f"{fleet}-own-1", fleet, -8, own=1))
        put(store, waiting(f"{fleet}-own-2", fleet, -7, own=2))
    put(store, waiting("idle-waits", "idle", -6), waiting("idle-own-1", "idle", -5, own=1))
    expected = ["open-waits", "two-waits", "one-own-2", "open-own-2", "two-own-2", "idle-waits", "idle-own-1"]
    with store.read() as reader:
        assert reader.ready_workspaces(20) == expected
        assert reader.outlook(1, 20).ready == expected
        assert reader.outlook(1, 20).waits
        assert reader.ready_workspaces(20, except_fleets={"idle"}) == expected[:-2]


@pytest.mark.parametrize(
    ("caps", "room"),
    [
        ({"settings": 1}, False),
        ({"settings": 2}, True),
        ({"settings": 2, "default": 1}, False),
        ({"settings": 1, "default": 2}, True),
        ({"default": 1, "fleet_blue": 2}, True),
        ({"default": 2, "fleet_blue": 1}, False),
        ({"default": 1, "fleet_blue": None}, False),
        ({"fleet_red": 1}, True),
        ({"settings": None}, True),
    ],
)
def test_a_cap_is_that_of_the_nearest_layer(store: CoreStore, caps: dict[str, int | None], room: bool) -> None:
    capped(store, **caps)
    put(store, running("blue-runs", at(900), fleet="blue"), waiting("blue-waits", "blue", -9))
    with store.read() as reader:
        assert reader.ready_workspaces(9) == (["blue-waits"] if room else [])


def test_a_cap_over_all_fleets(store: CoreStore) -> None:
    put(store, running("a", at(900), fleet="blue"), running("b", at(900), fleet="red"), waiting("c", "green", -1))
    with store.read() as reader:
        assert reader.ready_workspaces(9, running_most=3) == reader.outlook(1, 9, running_most=3).ready == ["c"]
        assert reader.ready_workspaces(9, running_most=2) == reader.outlook(1, 9, running_most=2).ready == []


def test_what_is_due_stays_due_when_the_clock_steps_back(clocked_store: CoreStore, set_clock: SetClock) -> None:
    put(clocked_store, state("due"), state("ready", restart=unsettled(NOON)), due_at=NOON)
    log(clocked_store, file_written())
    set_clock.step(-60)
    with clocked_store.read() as reader:
        assert reader.clock() == at(-60)
        assert reader.due_workspaces(10) == ["due", "ready"]
        assert reader.ready_workspaces(10) == ["ready"]


def test_due_and_ready_by_the_stores_own_clock(store: CoreStore) -> None:
    with store.read() as reader:
        now = reader.clock()
    put(store, state("due"), state("ready", restart=unsettled(now - timedelta(seconds=1))), due_at=now)
    soon = now + timedelta(minutes=5)
    put(store, state("later", restart=unsettled(soon)), due_at=soon + timedelta(minutes=1))
    with store.read() as reader:
        assert reader.due_workspaces(10) == ["due", "ready"]
        assert reader.ready_workspaces(10) == ["ready"]
        assert reader.next_instant() == soon


def test_leases_are_renewed_for_the_right_fence_of_an_open_cycle(store: CoreStore) -> None:
    put(store, running("mine", NOON, fence=4), running("lost", NOON, fence=5), state("ended", fence=4))
    with store.read() as reader:
        before = reader.clock()
    renewed = store.renew_leases(
        {"mine": (4, 30_000), "lost": (4, 30_000), "ended": (4, 30_000), "unknown": (4, 30_000)}
    )
    assert (set(renewed.kept), set(renewed.held_up)) == ({"mine"}, set())
    assert not store.renew_leases({}).kept
    with store.read() as reader:
        mine, lost = reader.workspace("mine"), reader.workspace("lost")
        assert mine is not None
        assert mine.lease is not None
        until = mine.lease.until
        assert before + timedelta(seconds=30) <= until <= reader.clock() + timedelta(seconds=30)
        assert mine == running("mine", until, fence=4)
        assert lost == running("lost", NOON, fence=5)


def test_a_transaction_asks_for_the_leases_of_the_cycles_that_are_open(store: CoreStore) -> None:
    put(store, running("b", at(2), fence=4), running("a", at(1), fence=3), state("idle"))
    with store.write(["a", "b", "idle", "unknown"]) as transaction:
        found = transaction.leases(["a", "b", "idle", "unknown"])
    assert {name: (lease.fence, lease.until) for name, lease in found.items()} == {"a": (3, at(1)), "b": (4, at(2))}


def test_a_lease_comes_with_its_cycle_stays_with_it_and_goes_with_it(store: CoreStore) -> None:
    put(store, running("ws", at(1), fence=4))
    put(store, StoredWorkspace(state=running("ws", NOON, fence=4, last_position=9).state, due_at=None))
    with store.read() as reader:
        stored = reader.workspace("ws")
        assert stored is not None
        assert stored.lease == running("ws", at(1), fence=4).lease
        assert [(one.workspace, one.cycle, one.fence) for one in reader.cycles_of("w")] == [("ws", "cyc_1", 4)]
        assert reader.cycles_of("another") == []
    put(store, state("ws", fence=4))
    with store.read() as reader:
        assert reader.workspace("ws") == StoredWorkspace(state=state("ws", fence=4), due_at=None)
        assert reader.cycles_of("w") == []


def test_a_renewed_lease_holds_when_the_clock_steps_back(clocked_store: CoreStore, set_clock: SetClock) -> None:
    put(clocked_store, running("mine", at(30)))
    log(clocked_store, file_written())
    set_clock.step(-3_600)
    assert clocked_store.renew_leases({"mine": (1, 30_000)}).kept == {"mine"}
    with clocked_store.read() as reader:
        assert reader.due_workspaces(10) == []


def test_open_cycles_are_counted_by_fleet(store: CoreStore) -> None:
    put(store, running("a", NOON, fleet="blue"), running("b", NOON, fleet="red"), state("c", "blue"))
    with store.write() as transaction:
        assert transaction.running("blue") == Running(total=2, in_fleet=1)
        assert transaction.running("green") == Running(total=2, in_fleet=0)


def test_the_backlog(audited_store: EventStore) -> None:
    with audited_store.read() as reader:
        empty = reader.backlog()
        assert replace(empty, now=NOON) == Backlog(
            now=NOON, pending_writes=0, pending_workspaces=0, oldest_due_at=None, running=0
        )
    put(audited_store, state("open", window=open_window(writes=3)), due_at=at(7))
    put(audited_store, state("asked", window=open_window(requests=1)), due_at=at(6))
    put(
        audited_store,
        running("runs", at(30), window=open_window(writes=2)),
        state("idle"),
        state("gone", removed=True),
    )
    with audited_store.read() as reader:
        assert replace(reader.backlog(), now=NOON) == Backlog(
            now=NOON,
            pending_writes=5,
            pending_workspaces=3,
            oldest_due_at=at(6),
            running=1,
            phases={Phase.WINDOW_OPEN: 2, Phase.RUNNING: 1, Phase.IDLE: 1, Phase.REMOVED: 1},
        )
    put(audited_store, state("queued", restart=unsettled(at(5))))
    with audited_store.read() as reader:
        assert reader.backlog().oldest_due_at == at(5)


def test_the_last_tick(store: CoreStore) -> None:
    with store.read() as reader:
        assert reader.last_tick_at() is None
        before = reader.clock()
    store.ticked()
    with store.read() as reader:
        first = reader.last_tick_at()
        assert first is not None
        assert before <= first <= reader.clock()
    store.ticked()
    with store.read() as reader:
        second = reader.last_tick_at()
        assert second is not None
        assert second > first


def test_counters_are_compared_and_set(audited_store: EventStore) -> None:
    with audited_store.read() as reader:
        assert reader.counters() == Counters(position=0, sums={})
    first, second = Counters(position=5, sums={"writes": 3}), Counters(position=9, sums={"writes": 4, "é": 1})
    assert not audited_store.save_counters(second, expected_position=5)
    assert audited_store.save_counters(first, expected_position=0)
    assert not audited_store.save_counters(second, expected_position=0)
    assert audited_store.save_counters(second, expected_position=5)
    with audited_store.read() as reader:
        assert reader.counters() == second
