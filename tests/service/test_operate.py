"""What people do to a workspace: answers, conflicts, and the same request again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.state import Registration
from orchestrator.errors import Conflict, InvalidInput, KeyReused, NotFound
from orchestrator.ports.store import CoreStore
from orchestrator.service.append import Author
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.operate import Operator
from tests.history import START, History
from tests.service.world import IDS, at_once, events

ME = Author(actor="me")
KEY = RequestKey(key="k1", fingerprint="f1")
MANUAL = cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="please")
UNHEALTHY = cmd.ReportProbe(healthy=False, detail="no answer")
WEB = Registration(fleet="web", labels={"a": "b"}, executor="simulated", target={}, policy=PolicyPatch())


def queue(history: History) -> RestartProjection:
    history.register()
    history.write("a.py")
    history.at(15)
    restart = history.queued()
    with history.store.read() as reader:
        record = reader.restart(restart)
    assert record is not None
    return record


def test_register_change_and_the_same_again(history: History) -> None:
    stored, created = history.operator.register("ws", WEB, ME)
    assert (created, stored.state.version, stored.due_at) == (True, 1, None)
    stored, created = history.operator.register("ws", structs.replace(WEB, fleet="api"), ME)
    assert (created, stored.state.version) == (False, 2)
    stored, created = history.operator.register("ws", structs.replace(WEB, fleet="api"), ME)
    assert (created, stored.state.version) == (False, 2)
    with pytest.raises(Conflict, match="registered already"):
        history.operator.register("ws", WEB, ME, create_only=True)


def test_its_own_policy_makes_its_window_due_anew(history: History) -> None:
    history.operator.register("ws", WEB, ME)
    history.write("a.py")
    stored, _ = history.operator.register("ws", structs.replace(WEB, policy=PolicyPatch(quiet_ms=3_000)), ME)
    assert stored.due_at == START + timedelta(seconds=3)


def test_registering_again_goes_on_with_versions_and_fence(history: History) -> None:
    queue(history)
    history.start()
    history.succeed()
    before = history.state()
    history.change(cmd.Remove(reason="gone"))
    stored, created = history.operator.register("ws", WEB, ME)
    assert created
    assert (stored.state.fence, stored.state.last_start_at) == (before.fence, before.last_start_at)
    assert stored.state.version == before.version + 2


@pytest.mark.parametrize(("trigger", "due_s"), [(ev.Trigger.MANUAL, 20), (ev.Trigger.MUTATION, 75)])
def test_a_request_says_when(history: History, trigger: ev.Trigger, due_s: int) -> None:
    queue(history)
    history.start()
    history.succeed()
    history.at(20)
    answer, replayed = history.operator.request_restart("ws", replace(MANUAL, trigger=trigger), ME)
    assert not replayed
    assert answer.due_at == START + timedelta(seconds=due_s)
    with history.store.read() as reader:
        event = reader.event(answer.id)
    assert event is not None
    assert event.position == answer.position


def test_a_request_while_held_has_no_instant(history: History) -> None:
    history.register()
    history.change(cmd.Hold(reason="deploy"))
    assert history.operator.request_restart("ws", MANUAL, ME)[0].due_at is None


def test_probes(history: History) -> None:
    history.register()
    probe = history.operator.report_probe
    assert probe("ws", cmd.ReportProbe(healthy=True), ME)[0].decision == "ignored"
    requested = probe("ws", UNHEALTHY, ME)[0]
    assert (requested.decision, requested.reason) == ("requested", None)
    pending = probe("ws", UNHEALTHY, ME)[0]
    assert (pending.decision, pending.reason) == ("suppressed", "restart_pending")
    history.queued()
    history.start()
    assert probe("ws", UNHEALTHY, ME)[0].reason == "cycle_running"
    history.succeed()
    assert probe("ws", UNHEALTHY, ME)[0].reason == "settling"
    history.change(cmd.Hold(reason="deploy"))
    assert probe("ws", UNHEALTHY, ME)[0].reason == "held"
    assert [event.reason for event in events(history.store, ev.ProbeSuppressed)] == [
        "restart_pending",
        "cycle_running",
        "settling",
        "held",
    ]


def test_what_records_nothing_waits_for_nobody_who_writes(shared_store: CoreStore) -> None:
    operator = Operator(shared_store, IDS)
    registered, _ = operator.register("ws", WEB, ME)
    with shared_store.write():
        answer, replayed = operator.report_probe("ws", cmd.ReportProbe(healthy=True), ME)
        again = operator.register("ws", WEB, ME)
    assert (answer.decision, replayed) == ("ignored", False)
    assert again == (registered, False)
    operator.change("ws", cmd.Remove(reason="gone"), ME)
    with shared_store.write(), pytest.raises(NotFound, match="ws"):
        operator.report_probe("ws", cmd.ReportProbe(healthy=True), ME)
    assert operator.register("ws", WEB, ME)[1]


def test_hold_release_remove(history: History) -> None:
    history.register()
    change = history.operator.change
    hold = cmd.Hold(reason="deploy", until=START + timedelta(seconds=9))
    assert change("ws", hold, ME)[0].changed
    assert not change("ws", hold, ME)[0].changed
    assert change("ws", cmd.Release(reason="done"), ME)[0].changed
    assert not change("ws", cmd.Release(reason="done"), ME)[0].changed
    with pytest.raises(InvalidInput, match="past"):
        change("ws", replace(hold, until=START), ME)
    assert change("ws", cmd.Remove(reason="gone"), ME)[0].changed
    with pytest.raises(NotFound):
        change("ws", cmd.Remove(reason="gone"), ME)


def test_removal_is_told_after_its_commit(store: CoreStore, history: History) -> None:
    told: list[tuple[str, bool]] = []

    def on_removed(workspace: str) -> None:
        told.append((workspace, history.state(workspace).removed))

    history.register()
    operator = Operator(store, IDS, on_removed=on_removed)
    operator.change("ws", cmd.Hold(reason="deploy"), ME)
    operator.change("ws", cmd.Remove(reason="gone"), ME)
    assert told == [("ws", True)]
    with pytest.raises(NotFound):
        operator.change("nobody", cmd.Remove(reason="gone"), ME)
    assert len(told) == 1


def test_removal_waives_what_runs_and_waits(history: History) -> None:
    queue(history)
    history.start()
    history.write("b.py")
    history.change(cmd.Remove(reason="gone"))
    assert [event.reason for event in events(history.store, ev.CycleAbandoned)] == ["removed"]
    assert [event.writes for event in events(history.store, ev.WritesWaived)] == [2]
    with history.store.read() as reader:
        assert reader.due_workspaces(10) == reader.ready_workspaces(10) == []


Command = Callable[[Operator, RequestKey | None], tuple[object, bool]]
COMMANDS: list[Command] = [
    lambda operator, key: operator.request_restart("ws", MANUAL, ME, key),
    lambda operator, key: operator.report_probe("ws", UNHEALTHY, ME, key),
    lambda operator, key: operator.report_probe("ws", cmd.ReportProbe(healthy=True), ME, key),
    lambda operator, key: operator.change("ws", cmd.Hold(reason="deploy"), ME, key),
    lambda operator, key: operator.change("ws", cmd.Release(reason="done"), ME, key),
    lambda operator, key: operator.change("ws", cmd.Remove(reason="gone"), ME, key),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_request_again(history: History, command: Command) -> None:
    history.register()
    first = command(history.operator, KEY)
    with history.store.read() as reader:
        position = reader.last_position()
    assert command(history.operator, KEY) == (first[0], True)
    assert first[1] is False
    with pytest.raises(KeyReused):
        command(history.operator, replace(KEY, fingerprint="f2"))
    with history.store.read() as reader:
        assert reader.last_position() == position


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_workspace(history: History, command: Command) -> None:
    with pytest.raises(NotFound, match="ws"):
        command(history.operator, KEY)
    history.register()
    assert command(history.operator, KEY)[1] is False  # a refusal is not kept


def test_a_request_from_threads_at_once_has_one_effect(shared_store: CoreStore) -> None:
    operator = Operator(shared_store, IDS)
    operator.register("ws", WEB, ME)
    answers = at_once([lambda: operator.request_restart("ws", MANUAL, ME, KEY) for _ in range(5)])
    assert len({answer.id for answer, _ in answers}) == 1
    assert len(events(shared_store, ev.RestartRequested)) == 1


def test_cancel_a_queued_restart(history: History) -> None:
    record = queue(history)
    assert history.operator.cancel(record, "not now", ME)[0].changed
    assert [event.reason for event in events(history.store, ev.WritesWaived)] == ["operator"]
    assert history.state().phase == "idle"
    history.write("b.py")
    assert history.state().phase == "window_open"


def test_cancel_a_retrying_restart(history: History) -> None:
    record = queue(history)
    history.start()
    history.fail("no")
    assert history.operator.cancel(record, "not now", ME)[0].changed


def test_cancel_a_running_or_settled_restart(history: History) -> None:
    record = queue(history)
    history.start()
    with pytest.raises(Conflict, match="is running"):
        history.operator.cancel(record, "not now", ME)
    history.succeed()
    with pytest.raises(Conflict, match="settled"):
        history.operator.cancel(record, "not now", ME)  # read before it ended
    with history.store.read() as reader:
        settled = reader.restart(record.id)
    assert settled is not None
    with pytest.raises(Conflict, match="succeeded"):
        history.operator.cancel(settled, "not now", ME)
    with pytest.raises(Conflict):
        history.operator.cancel(settled, "not now", ME, KEY)


def test_cancel_again_with_its_key(history: History) -> None:
    record = queue(history)
    history.operator.cancel(record, "not now", ME, KEY)
    with history.store.read() as reader:
        cancelled = reader.restart(record.id)
    assert cancelled is not None
    assert history.operator.cancel(cancelled, "not now", ME, KEY)[1] is True


def test_report_exit(history: History) -> None:
    exited = ev.ProcessExited(exit_code=1, signal=None, respawn_after_ms=1_000)
    history.operator.report_exit("nobody", exited)
    history.register()
    before = history.state()
    history.operator.report_exit("ws", exited)
    assert history.state() == before  # a fact: it covers nothing and has no version
    history.change(cmd.Remove(reason="gone"))
    history.operator.report_exit("ws", exited)
    assert events(history.store, ev.ProcessExited) == [exited]


def test_a_clock_that_stepped_back_is_reported_once(history: History) -> None:
    history.register()
    history.write("a")
    history.at(-3600)
    history.write("b")
    history.write("c")
    history.at(-1800)
    history.request("please")
    assert [event.by_ms for event in events(history.store, ev.ClockRegressed)] == [3_600_000]
    with history.store.read() as reader:
        due = reader.workspace("ws")
    assert due is not None
    assert due.due_at == START
