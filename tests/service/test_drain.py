"""The drain loop: what a slot claims, how cycles end, and what cannot lock a workspace out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import pytest
from msgspec.structs import replace

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.policy import PolicyPatch
from orchestrator.errors import InvalidTarget, PermanentError, StorageUnavailable, TransientError, UnknownOutcome
from orchestrator.ports.executor import EarlierCycle, Order, Readiness, Receipt
from orchestrator.ports.store import CoreStore
from orchestrator.ports.unit import AnswerT, Unit
from orchestrator.service import execute
from orchestrator.service.change_policy import change_policy
from tests.history import START, History, TestClock
from tests.service.damage import damaged
from tests.service.world import Scripted, drainer, events, write
from workers.executors.simulated import SimulatedExecutor


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait between the tries of a transient error, and between two looks, for a moment only."""
    monkeypatch.setattr(execute, "_TRANSIENT_WAIT_S", 0.001)
    monkeypatch.setattr(execute, "_LOOK_EVERY_S", 0.001)


def queue(history: History, *workspaces: str, **policy: str) -> None:
    """Leave a queued restart in each workspace, the first one ready longest."""
    for number, name in enumerate(workspaces):
        history.at(number)
        history.register(name, fleet="default", **policy)
        history.write("a.py", workspace=name)
    history.at(15 + len(workspaces))
    for name in workspaces:
        history.tick(name)


@dataclass
class AnswerLost:
    """A store whose next commit is done, and its answer lost on the way."""

    inner: CoreStore
    armed: bool = False

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        answer = self.inner.commit(unit)
        if self.armed:
            self.armed = False
            raise StorageUnavailable("the connection was cut")
        return answer

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


def started(history: History) -> list[ev.CycleStarted]:
    return events(history.store, ev.CycleStarted)


def test_one_write_one_restart(history: History) -> None:
    queue(history, "ws")
    executor = Scripted(generation=iter(["g1", "g2"]).__next__)
    assert drainer(history.store, executor).drain() == 1
    [order] = executor.orders
    assert (order.workspace, order.fence, order.target) == ("ws", 1, {})
    assert order.reason == "1 writes to 1 files"
    [ended] = events(history.store, ev.CycleSucceeded)
    assert (ended.generation_before, ended.generation_after, ended.verified) == ("g1", "g2", True)
    assert ended.output == "done"
    assert history.state().phase == "idle"


def test_the_longest_ready_first(history: History) -> None:
    queue(history, "c", "a", "b")
    executor = Scripted()
    assert drainer(history.store, executor).drain() == 3
    assert [order.workspace for order in executor.orders] == ["c", "a", "b"]
    assert [start.iteration for start in started(history)] == [1, 1, 1]


def test_what_arrives_during_a_cycle_is_one_more_iteration(history: History) -> None:
    """An out-of-window write fed into a still-draining cycle: one more, re-stamped, once the spacing allows."""
    queue(history, "ws")

    def act(order: Order) -> Receipt:
        if order.fence == 1:
            history.at(120)  # the cycle takes longer than min_interval
            history.write("b.py", "c.py")
            history.at(140)
        return Receipt()

    assert drainer(history.store, Scripted(act=act)).drain() == 2
    first, second = started(history)
    assert (first.iteration, second.iteration) == (1, 2)
    assert (second.previous_started_at, second.writes) == (first.started_at, 2)
    assert second.started_at == START + timedelta(seconds=140)
    history.write("d.py")
    history.tick()
    due = history.state()
    assert due.restart is None
    history.at(199)
    history.tick()
    assert history.state().restart is None  # 60 s from the newest start
    history.at(200)
    history.tick()
    assert history.state().restart is not None


def test_a_slot_that_is_taken_starts_nothing(history: History) -> None:
    queue(history, "a", "b")
    inside, leave = threading.Event(), threading.Event()

    def act(order: Order) -> Receipt:
        inside.set()
        assert leave.wait(10)
        return Receipt()

    worker = drainer(history.store, Scripted(act=act), slots=1)
    thread = threading.Thread(target=worker.drain)
    thread.start()
    assert inside.wait(10)
    assert (worker.slots.free, worker.drain()) == (0, 0)
    leave.set()
    thread.join(10)
    assert worker.slots.free == 1
    assert len(started(history)) == 2


def test_a_retry_takes_along_what_came_meanwhile(history: History) -> None:
    queue(history, "ws")
    failures = iter([UnknownOutcome("no"), None])

    def act(order: Order) -> Receipt:
        failure = next(failures)
        if failure is not None:
            raise failure
        return Receipt()

    assert drainer(history.store, Scripted(act=act)).drain() == 1
    history.write("b.py")
    history.clock.at += timedelta(microseconds=1)  # jitter 0: the retry may start at once
    retrying = Scripted(act=act)
    assert drainer(history.store, retrying).drain() == 1
    first, second = started(history)
    assert (first.restart, second.attempt, second.writes, second.files) == (second.restart, 2, 2, 2)
    assert history.state().phase == "idle"
    [order] = retrying.orders
    told = EarlierCycle(cycle=first.cycle, fence=first.fence, to_position=first.to_position)
    assert (order.to_position, order.earlier) == (second.to_position, (told,))
    assert first.to_position < second.to_position


def test_a_first_cycle_is_told_of_none_before_it(history: History) -> None:
    queue(history, "ws")
    executor = Scripted()
    assert drainer(history.store, executor).drain() == 1
    [order] = executor.orders
    [only] = started(history)
    assert (order.to_position, order.earlier) == (only.to_position, ())


def test_shadow_executes_nothing(history: History) -> None:
    queue(history, "ws", mode="shadow")
    executor = Scripted()
    assert drainer(history.store, executor).drain() == 1
    assert executor.orders == []
    assert [end.shadow for end in events(history.store, ev.CycleSucceeded)] == [True]


def _raise(error: Exception) -> Callable[[Order], Receipt]:
    def act(order: Order) -> Receipt:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermanentError("never"), "permanent"),
        (InvalidTarget("field"), "permanent"),
        (UnknownOutcome("who knows"), "unknown"),
        (KeyError("a plug-in's defect"), "unknown"),
        (OSError(28, "No space left on device"), "unknown"),
        (ValueError("\x00 and \ud800 and \n more"), "unknown"),
    ],
)
def test_a_raising_executor_fails_the_cycle(history: History, error: Exception, kind: str) -> None:
    queue(history, "ws", "other")
    worker = drainer(history.store, Scripted(act=_raise(error)))
    assert worker.drain() == 2
    failed = events(history.store, ev.CycleFailed)
    assert [failure.error_kind for failure in failed] == [kind, kind]
    assert all(failure.message for failure in failed)
    assert (worker.slots.free, worker.leases.held()) == (1, [])


GOOD = Receipt(output="in with the new secret")


def test_what_an_executor_says_of_its_secrets_is_nowhere(history: History, capfd: pytest.CaptureFixture[str]) -> None:
    """Of the value of before it acted, and of the one that took its place meanwhile."""
    values = ["the old secret", "the new secret"]

    def act(order: Order) -> Receipt:
        try:
            raise KeyError(values[0])
        except KeyError as error:
            raise RuntimeError(f"a defect with {values[1]}") from error

    queue(history, "bad", "good")
    told = [values[0], *[values[1]] * 9]
    worker = drainer(history.store, Scripted(act=lambda order: act(order) if order.workspace == "bad" else GOOD))
    worker.secrets = lambda target: (told.pop(0) if told else values[1],)
    worker.drain()
    [failure], [end] = events(history.store, ev.CycleFailed), events(history.store, ev.CycleSucceeded)
    assert (failure.message, end.output) == ("a defect with ***", "in with ***")
    lines = capfd.readouterr().out
    assert ("executor.raised" in lines, "Traceback" in lines) == (True, True)
    assert [value for value in values if value in lines] == []


def test_a_long_failure_and_a_long_output_keep_their_ends(history: History) -> None:
    long = "the beginning" + "noise\n" * 5_000 + "THE REAL ERROR"
    queue(history, "bad", "good")

    def act(order: Order) -> Receipt:
        if order.workspace == "bad":
            raise UnknownOutcome(long)
        return Receipt(output=long)

    drainer(history.store, Scripted(act=act)).drain()
    [failure], [end] = events(history.store, ev.CycleFailed), events(history.store, ev.CycleSucceeded)
    for said, most in ((failure.message, 2_000), (end.output, 8_192)):
        assert (len(said), said[:13], said[-14:]) == (most, "the beginning", "THE REAL ERROR")
        assert "30027 characters in all" in said


def test_a_plug_in_that_raises_at_its_target(history: History) -> None:
    class Broken(Scripted):
        def normalise(self, target: object) -> dict[str, object]:
            raise TypeError("target is None")

    queue(history, "ws")
    assert drainer(history.store, Broken()).drain() == 1
    assert [failure.error_kind for failure in events(history.store, ev.CycleFailed)] == ["unknown"]


def test_a_worker_without_the_executor_leaves_its_restart_to_one_that_has(history: History) -> None:
    """A rolling deployment of a plug-in, say: whichever worker wakes first."""
    queue(history, "ws")
    assert drainer(history.store, None).drain() == 0
    assert drainer(history.store, Scripted(), worker="having").drain() == 1
    [started] = events(history.store, ev.CycleStarted)
    assert (started.worker, len(events(history.store, ev.CycleSucceeded))) == ("having", 1)


def test_a_worker_of_another_pool_leaves_its_restart(history: History) -> None:
    """By its name an executor is not enough: a program is a thing of one host."""
    history.register("there", pool="host-2")
    history.write("a.py", workspace="there")
    history.at(20)
    history.tick("there")
    executor = Scripted()
    assert drainer(history.store, executor).drain() == 0
    assert drainer(history.store, executor, pools=["host-2"]).drain() == 1
    assert "pool" not in executor.orders[0].target, "who acts is nothing to the executor"


def test_a_target_that_is_no_longer_taken_is_permanent(history: History) -> None:
    class Strict(Scripted):
        def normalise(self, target: object) -> dict[str, object]:
            raise InvalidTarget("target field 'argv' is missing")

    queue(history, "ws")
    drainer(history.store, Strict()).drain()
    [failed] = events(history.store, ev.CycleFailed)
    assert (failed.error_kind, failed.message) == ("permanent", "target field 'argv' is missing")


def test_transient_errors_are_tried_again_inside_the_cycle(history: History) -> None:
    queue(history, "ws")
    tries = iter([TransientError("busy"), TransientError("busy"), None])

    def act(order: Order) -> Receipt:
        error = next(tries)
        if error is not None:
            raise error
        return Receipt()

    executor = Scripted(act=act)
    drainer(history.store, executor).drain()
    assert len(executor.orders) == 3
    assert len({order.cycle for order in executor.orders}) == 1
    assert history.state().phase == "idle"


def test_transient_errors_do_not_go_on_for_ever(history: History) -> None:
    queue(history, "ws")
    executor = Scripted(act=_raise(TransientError("busy")))
    drainer(history.store, executor).drain()
    assert len(executor.orders) == execute.TRANSIENT_TRIES
    assert [failure.error_kind for failure in events(history.store, ev.CycleFailed)] == ["transient"]


def test_ready_before_succeeded(history: History) -> None:
    queue(history, "ws")
    looks = iter([Readiness.NOT_YET, Readiness.NOT_YET, Readiness.READY])
    drainer(history.store, Scripted(look=lambda order: next(looks))).drain()
    assert len(events(history.store, ev.CycleSucceeded)) == 1
    assert next(looks, None) is None


@pytest.mark.parametrize(("look", "kind"), [(Readiness.NOT_YET, "timeout"), (Readiness.FAILED, "unknown")])
def test_never_ready(history: History, look: Readiness, kind: str) -> None:
    queue(history, "ws", cycle_timeout="20ms")
    drainer(history.store, Scripted(look=lambda order: look)).drain()
    assert [failure.error_kind for failure in events(history.store, ev.CycleFailed)] == [kind]


def test_the_simulated_executor_fails_hangs_and_succeeds(history: History) -> None:
    history.register("ws", cycle_timeout="30ms", max_attempts=5)
    registration = history.state().registration
    assert registration is not None
    target = {"fail_first": 1, "hang_first": 1, "delay": "0s"}
    history.carry_out("ws", cmd.Register(registration=replace(registration, target=target)))
    history.write("a")
    history.at(15)
    history.tick()
    executor = SimulatedExecutor()
    for _ in range(3):
        drainer(history.store, executor).drain()
        history.clock.at += timedelta(seconds=10)
    assert [failure.error_kind for failure in events(history.store, ev.CycleFailed)] == ["unknown", "timeout"]
    assert len(events(history.store, ev.CycleSucceeded)) == 1


def test_a_result_that_comes_too_late_changes_nothing(history: History) -> None:
    queue(history, "ws")

    def act(order: Order) -> Receipt:
        if order.fence == 1:
            history.at(100)
            history.tick()  # the lease has passed: another worker goes on
            drainer(history.store, Scripted(), worker="other:1").drain()
        return Receipt()

    drainer(history.store, Scripted(act=act)).drain()
    [late] = events(history.store, ev.LateResultRejected)
    assert (late.fence, late.current_fence, late.result) == (1, 2, "succeeded")
    assert len(events(history.store, ev.CycleSucceeded)) == 1


def test_a_damaged_workspace_keeps_no_slot_from_the_others(
    sqlite_store: CoreStore, sqlite_url: str, clock: TestClock, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(sqlite_store, clock)
    queue(history, "bad", "good")
    with damaged(sqlite_url, "bad"):
        assert drainer(sqlite_store, Scripted()).drain() == 1
        assert [start.worker for start in started(history)] == ["host:1"]
    assert "claim.failed" in capsys.readouterr().out
    assert drainer(sqlite_store, Scripted()).drain() == 1


def test_a_page_of_refused_ones_hides_nobody(history: History) -> None:
    names = [f"ws-{number:02}" for number in range(60)]
    history.register("first", fleet="full", max_concurrent=1)
    for name in names:
        write(history.store, name, "a")
        history.register(name, fleet="full", max_concurrent=1)  # their own bound, not their fleet's
    history.write("a", workspace="first")
    history.at(1)
    write(history.store, "last", "a")
    history.at(20)
    for name in ("first", *names, "last"):
        history.tick(name)
    history.start("first")
    executor = Scripted()
    assert drainer(history.store, executor).drain() == 1
    assert [order.workspace for order in executor.orders] == ["last"]


def test_a_full_fleet_starves_nobody(history: History) -> None:
    rows = [("a", "one"), ("b", "one"), ("c", "two"), ("d", "one"), ("e", "two")]
    with_bound(history, "one", 1)
    for number, (name, fleet) in enumerate(rows):
        history.at(number)
        history.register(name, fleet=fleet)
        history.write("p", workspace=name)
    history.at(30)
    for name, _ in rows:
        history.tick(name)
    history.start("a")
    executor = Scripted()
    assert drainer(history.store, executor).drain() == 2
    assert [order.workspace for order in executor.orders] == ["c", "e"]


def with_bound(history: History, fleet: str, most: int) -> None:
    change_policy(
        history.store, history.ids, scope=f"fleet:{fleet}", patch=PolicyPatch(max_concurrent=most), actor="me"
    )


def test_the_cap_over_all_workers(history: History) -> None:
    queue(history, "a", "b", "c")
    history.start("a")
    assert drainer(history.store, Scripted(), running_most=1).drain() == 0
    assert drainer(history.store, Scripted(), running_most=2).drain() == 2


def _fails(order: Order) -> Receipt:
    raise PermanentError("no such container")


@pytest.mark.parametrize(
    ("act", "end"),
    [(lambda order: Receipt(output="done"), ev.CycleSucceeded), (_fails, ev.CycleFailed)],
    ids=["success", "failure"],
)
def test_an_end_whose_answer_is_lost_is_recorded_once(
    history: History, act: Callable[[Order], Receipt], end: type[ev.EventData]
) -> None:
    """Recorded again it would be a late result of a cycle that had ended in time."""
    queue(history, "ws")
    store = AnswerLost(history.store)

    def act_and_lose(order: Order) -> Receipt:
        store.armed = True
        return act(order)

    drainer(cast("CoreStore", store), Scripted(act=act_and_lose)).drain()

    assert not store.armed
    assert len(events(history.store, end)) == 1
    assert events(history.store, ev.LateResultRejected) == []


def test_a_late_result_whose_answer_is_lost_is_recorded_once(history: History) -> None:
    queue(history, "ws")
    store = AnswerLost(history.store)

    def overtaken(order: Order) -> Receipt:
        if order.fence == 1:
            history.at(3_600)
            history.tick("ws")  # its lease has passed
            store.armed = True
        return Receipt(output="done")

    drainer(cast("CoreStore", store), Scripted(act=overtaken)).drain()

    assert [late.result for late in events(history.store, ev.LateResultRejected)] == ["succeeded"]
