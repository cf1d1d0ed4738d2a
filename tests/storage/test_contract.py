"""What every store promises of the log and of transactions: one suite over memory, SQLite and PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, timedelta
from threading import Event

import pytest
from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action, PolicyLayer, PolicyPatch
from orchestrator.errors import Conflict, RolledBack
from orchestrator.ports.store import CoreStore, EventFilter
from orchestrator.ports.transaction import StoredAnswer, Transaction
from orchestrator.ports.workspaces import StoredWorkspace
from tests.storage.conftest import SetClock
from tests.storage.samples import (
    FULL_PATCH,
    at,
    event,
    file_written,
    full_state,
    log,
    put,
    record,
    requested,
    state,
)
from tests.waiting import wait_until


def test_an_event_is_read_as_it_was_appended(store: CoreStore) -> None:
    given = event(
        ev.FileWritten(path="ä/b c", op=ev.Operation.RENAMED, action=Action.RELOAD, digest="d", size=3, rule="*.py"),
        source="editor",
        source_id="17",
        occurred_at=at(0.5),
        correlation_id="rst_1",
        causation_id="evt_0",
        traceparent="00-1-2-01",
    )
    [recorded] = log(store, given)
    assert recorded.position == 1
    assert recorded.recorded_at.tzinfo is UTC
    assert replace(given, source="editor").data == recorded.data
    with store.read() as reader:
        assert reader.event(given.id) == recorded
        assert reader.events(EventFilter()) == [recorded]
        assert reader.event("evt_unknown") is None


def test_one_transaction_is_one_instant_and_keeps_the_order_given(store: CoreStore) -> None:
    with store.write() as transaction:
        first = transaction.append([file_written(f"{number}") for number in range(1_500)])
        second = transaction.append([requested()])
        now = transaction.now
    recorded = [*first, *second]
    assert {one.recorded_at for one in recorded} == {now}
    assert [one.position for one in recorded] == sorted({one.position for one in recorded})
    assert [one.data.path for one in first if isinstance(one.data, ev.FileWritten)] == [str(n) for n in range(1_500)]
    with store.read() as reader:
        assert reader.events(EventFilter(limit=2_000)) == recorded
        assert reader.last_position() == recorded[-1].position


def test_an_empty_store(store: CoreStore) -> None:
    with store.write(["nobody"]) as transaction:
        assert transaction.append([]) == []
        transaction.save([])
        transaction.save_restarts([])
        assert transaction.workspace("nobody") is None
        assert transaction.locked() == ()
        assert transaction.by_source([]) == {}
        assert transaction.clock_behind_ms == 0
    with store.read() as reader:
        assert reader.last_position() == 0
        assert reader.workspace("nobody") is None
        assert reader.policies().layers == {}
        assert reader.clock() >= transaction.now


def test_a_taken_version_is_a_conflict_and_rolls_back(store: CoreStore) -> None:
    log(store, requested(version=1))

    def decide_again() -> None:
        with store.write(["ws"]) as transaction:
            transaction.save([StoredWorkspace(state=state(version=1), due_at=None)])
            transaction.append([file_written(), requested(version=1)])

    with pytest.raises(Conflict):
        decide_again()
    with store.read() as reader:
        assert [one.version for one in reader.events(EventFilter())] == [1]
        assert reader.workspace("ws") is None


def test_a_taken_version_refuses_everything_that_came_with_it(store: CoreStore) -> None:
    log(store, requested(version=1))

    def decide_and_go_on() -> None:
        with store.write(["ws"]) as transaction:
            transaction.append([file_written()])
            with suppress(Conflict):  # some stores know at once, some at the end
                transaction.append([requested(version=1)])

    with pytest.raises((Conflict, RolledBack)):
        decide_and_go_on()
    with store.read() as reader:
        assert len(reader.events(EventFilter())) == 1


def test_a_part_that_raises_is_forgotten_and_those_around_it_stay(store: CoreStore) -> None:
    def fail(transaction: Transaction) -> None:
        with transaction.part():
            transaction.append([file_written(path="lost")])
            transaction.save([StoredWorkspace(state=state("lost"), due_at=None)])
            raise KeyError

    with store.write(["ws", "lost"]) as transaction:
        with transaction.part():
            (first,) = transaction.append([file_written(path="first")])
        with pytest.raises(KeyError):
            fail(transaction)
        assert transaction.workspace("lost") is None
        with transaction.part():
            (second,) = transaction.append([file_written(path="second")])
    with store.read() as reader:
        assert [one.position for one in reader.events(EventFilter())] == [first.position, second.position]
        assert second.position == first.position + 1
        assert reader.workspace("lost") is None


def test_facts_and_events_of_no_workspace_have_no_version_to_collide(store: CoreStore) -> None:
    regressed = ev.ClockRegressed(by_ms=5)
    recorded = log(store, file_written(), file_written(), event(regressed, None), event(regressed, None))
    assert [one.version for one in recorded] == [None] * 4


def test_rollback_is_exact(store: CoreStore) -> None:
    put(store, state())
    log(store, file_written(source_id="1"))

    def write_everything_and_fail() -> None:
        with store.write(["ws", "other"]) as transaction:
            transaction.append([file_written(source_id="2"), requested()])
            transaction.save([StoredWorkspace(state=state(version=9), due_at=at(1))])
            transaction.save([StoredWorkspace(state=state("other"), due_at=None)])
            transaction.save_restarts([record()])
            transaction.save_policy(PolicyLayer(scope="default", policy=FULL_PATCH, version=1))
            transaction.remember("me", "key", StoredAnswer(fingerprint="f", answer="a"))
            raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        write_everything_and_fail()
    with store.write() as transaction:
        assert transaction.by_source([("local:me", "2")]) == {}
        assert transaction.answer("me", "key") is None
        assert transaction.restart("rst_1") is None
        assert transaction.policies().layers == {}
    with store.read() as reader:
        assert len(reader.events(EventFilter())) == 1
        assert reader.workspace("ws") == StoredWorkspace(state=state(), due_at=None)
        assert reader.workspace("other") is None
    log(store, file_written(source_id="2"), requested())


def test_a_reader_that_remembers_the_last_position_misses_nothing(store: CoreStore) -> None:
    threads, appends = 8, 15
    done = Event()

    def append(thread: int) -> list[int]:
        own = [log(store, file_written(workspace=f"ws-{thread}"), file_written()) for _ in range(appends)]
        return [one.position for batch in own for one in batch]

    def follow() -> list[ev.Recorded]:
        seen: list[ev.Recorded] = []
        while True:
            all_are_there = done.is_set()
            with store.read() as reader:
                page = reader.events(EventFilter(after=seen[-1].position if seen else 0, limit=7))
            seen += page
            if all_are_there and not page:
                return seen

    with ThreadPoolExecutor(threads + 1) as pool:
        following = pool.submit(follow)
        appended = [position for positions in pool.map(append, range(threads)) for position in positions]
        done.set()
        seen = following.result(timeout=20)
    assert [one.position for one in seen] == sorted(appended)
    assert len(set(appended)) == threads * appends * 2
    instants = [one.recorded_at for one in seen]
    assert instants == sorted(instants)


def test_recorded_time_stands_still_while_the_clock_has_stepped_back(
    clocked_store: CoreStore, set_clock: SetClock
) -> None:
    [first] = log(clocked_store, file_written())
    set_clock.step(-3_600)
    with clocked_store.write() as transaction:
        assert transaction.now == first.recorded_at
        assert transaction.clock_behind_ms == 3_600_000
        [second] = transaction.append([file_written()])
    assert second.recorded_at == first.recorded_at
    set_clock.step(3_601)
    with clocked_store.write() as transaction:
        assert transaction.now == first.recorded_at + timedelta(seconds=1)
        assert transaction.clock_behind_ms == 0


def test_the_newest_clock_regression(store: CoreStore) -> None:
    log(store, event(ev.ClockRegressed(by_ms=1), None))
    [newest] = log(store, event(ev.ClockRegressed(by_ms=2), None))
    log(store, file_written())
    with store.write() as transaction:
        assert transaction.last_clock_regression_at() == newest.recorded_at


def test_events_are_found_by_their_source(store: CoreStore) -> None:
    recorded = log(
        store,
        file_written(source="editor", source_id="1"),
        file_written(source="editor", source_id="2"),
        file_written(source_id="1"),
        file_written(),
    )
    assert [one.source for one in recorded] == ["editor", "editor", "local:me", None]
    wanted = [("editor", "2"), ("local:me", "1"), ("editor", "3"), ("other", "1")]
    with store.write() as transaction:
        found = transaction.by_source(wanted)
    assert found == {("editor", "2"): recorded[1], ("local:me", "1"): recorded[2]}
    with pytest.raises(Conflict):
        log(store, file_written(source="local:me", source_id="1"))


def test_a_state_with_every_field_set_comes_back_whole(store: CoreStore) -> None:
    saved = StoredWorkspace(state=full_state(), due_at=at(20.000001))
    with store.write(["ws"]) as transaction:
        transaction.save([saved])
        assert transaction.workspace("ws") == saved
    with store.read() as reader:
        assert reader.workspace("ws") == saved
    with store.write(["ws"]) as transaction:
        assert transaction.workspace("ws") == saved
        assert transaction.locked() == ("ws",)


def test_only_held_workspaces_can_be_seen_and_saved(store: CoreStore) -> None:
    put(store, state("a"), state("b"))

    def save_another() -> None:
        with store.write(["a"]) as transaction:
            assert transaction.workspace("b") is None
            transaction.save([StoredWorkspace(state=state("b", version=5), due_at=None)])

    with pytest.raises(Conflict, match="'b' is not held"):
        save_another()
    with store.read() as reader:
        assert reader.workspace("b") == StoredWorkspace(state=state("b"), due_at=None)


def test_many_workspaces_are_saved_and_locked_in_order(store: CoreStore) -> None:
    names = [f"ws-{number:04}" for number in range(600)]
    put(store, *(state(name) for name in names))
    with store.write(names[::-1]) as transaction:
        assert transaction.locked() == tuple(names)
        transaction.save([StoredWorkspace(state=state(name, version=2), due_at=None) for name in names])
    with store.write(names) as transaction:
        stored = [transaction.workspace(name) for name in names]
        assert [one.state.version for one in stored if one is not None] == [2] * 600


def test_policies_are_replaced_by_scope(store: CoreStore) -> None:
    layers = [
        PolicyLayer(scope="default", policy=PolicyPatch(), version=1),
        PolicyLayer(scope="fleet:blue", policy=FULL_PATCH, version=2),
        PolicyLayer(scope="default", policy=PolicyPatch(quiet_ms=7), version=3),
    ]
    for layer in layers:
        with store.write() as transaction:
            transaction.save_policy(layer)
            assert transaction.policies().layers[layer.scope] == layer
    with store.read() as reader:
        assert reader.policies().layers == {"default": layers[2], "fleet:blue": layers[1]}


def test_answers_are_kept_by_actor_and_key_until_they_are_forgotten(store: CoreStore) -> None:
    answer = StoredAnswer(fingerprint="sha", answer='{"position":1}')
    with store.write() as transaction:
        transaction.remember("me", "key", answer)
        assert transaction.answer("me", "key") == answer
        remembered_at = transaction.now
    with store.write() as transaction:
        assert transaction.answer("me", "other") is None
        assert transaction.answer("you", "key") is None

    def answer_again() -> None:
        with store.write() as transaction:
            transaction.remember("me", "key", answer)

    with pytest.raises(Conflict):
        answer_again()
    assert store.forget_answers(remembered_at) == 0
    assert store.forget_answers(remembered_at + timedelta(microseconds=1)) == 1
    with store.write() as transaction:
        assert transaction.answer("me", "key") is None


def test_writers_of_one_workspace_take_turns(store: CoreStore) -> None:
    put(store, state())
    threads, turns = 6, 8

    def decide(_: int) -> None:
        for _ in range(turns):
            with store.write(["ws"]) as transaction:
                found = transaction.workspace("ws")
                assert found is not None
                version = found.state.version + 1
                transaction.append([requested(version=version)])
                transaction.save([StoredWorkspace(state=replace(found.state, version=version), due_at=None)])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decide, range(threads)))
    with store.read() as reader:
        stored = reader.workspace("ws")
        assert stored is not None
        assert stored.state.version == threads * turns
        assert [one.version for one in reader.events(EventFilter())] == list(range(1, threads * turns + 1))


def test_of_two_that_register_at_once_one_finds_the_other(store: CoreStore) -> None:
    names = [f"new-{number}" for number in range(12)]

    def register(_: int) -> int:
        registered = 0
        for name in names:
            with store.write([name]) as transaction:
                if transaction.workspace(name) is None:
                    transaction.append([requested(name, version=1)])
                    transaction.save([StoredWorkspace(state=state(name, version=1), due_at=None)])
                    registered += 1
        return registered

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(register, range(4))) == len(names)


def test_a_writer_waits_for_the_one_before_and_sees_what_it_did(store: CoreStore) -> None:
    started = Event()

    def second() -> StoredWorkspace | None:
        started.set()
        with store.write(["ws"]) as transaction:
            return transaction.workspace("ws")

    with ThreadPoolExecutor(1) as pool:
        with store.write(["ws"]) as transaction:
            waiting = pool.submit(second)
            assert started.wait(5)
            assert wait_until(lambda: not waiting.done(), what="the second writer waits")
            transaction.save([StoredWorkspace(state=state(version=3), due_at=None)])
        assert waiting.result(timeout=5) == StoredWorkspace(state=state(version=3), due_at=None)


def test_a_reader_sees_one_state_throughout(store: CoreStore) -> None:
    log(store, file_written())
    with store.read() as reader:
        assert reader.last_position() == 1
        log(store, file_written())
        put(store, state())
        assert reader.last_position() == 1
        assert len(reader.events(EventFilter())) == 1
        assert reader.workspace("ws") is None
    with store.read() as reader:
        assert reader.last_position() > 1


def test_free_rows_are_held_also_when_locked_ones_are_to_be_skipped(store: CoreStore) -> None:
    put(store, state("a"), state("b"))
    with store.write(["a", "b", "c"], skip_locked=True) as transaction:
        assert transaction.locked() == ("a", "b")
        transaction.save([StoredWorkspace(state=state("c"), due_at=None)])


def test_floats_are_refused_everywhere(store: CoreStore) -> None:
    with pytest.raises(TypeError):
        log(store, event(ev.ProbeSuppressed(reason=ev.Suppression.HELD, detail=0.5)))  # type: ignore[arg-type]


def test_check_passes_on_a_store_that_can_serve(store: CoreStore) -> None:
    store.check()
