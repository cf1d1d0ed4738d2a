"""Recording writes: what each leads to, in every state of its workspace, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import FileWritten, Trigger, WorkspaceRegistered, WriteDecision
from orchestrator.domain.policy import Action
from orchestrator.ports.store import CoreStore
from orchestrator.service.record import AutoRegistration, RecordedBatch, Write, record_writes
from tests.history import START, CountedIds, History
from tests.service.world import events, write

OFF = AutoRegistration()
MINUTE = timedelta(seconds=60)


def record(store: CoreStore, *writes: Write, auto: AutoRegistration = OFF) -> RecordedBatch:
    batch, replayed = record_writes(store, writes, actor="me", ids=CountedIds(500), auto=auto)
    assert not replayed
    return batch


def test_a_single_write(history: History) -> None:
    history.register()
    [answer] = history.write("a.py")
    assert (answer.workspace, answer.action, answer.replayed) == ("ws", Action.RESTART, False)
    assert answer.decision is WriteDecision.OPENED_WINDOW
    assert answer.due_at == START + timedelta(seconds=15)
    with history.store.read() as reader:
        event = reader.event(answer.id)
    assert event is not None
    assert (event.position, event.version, event.actor) == (answer.position, None, history.author)
    assert isinstance(event.data, FileWritten)
    assert event.data.path == "a.py"


def test_a_batch_keeps_its_order_and_answers_by_index(history: History) -> None:
    history.register("a")
    history.register("b")
    names = ["a", "b", "a", "b", "b"]
    batch = record(history.store, *[Write(workspace=name, path=f"p{n}") for n, name in enumerate(names)])
    answers = [batch.accepted[index] for index in range(5)]
    assert [answer.workspace for answer in answers] == names
    positions = [answer.position for answer in answers]
    assert positions == sorted(positions)
    opened, folded = WriteDecision.OPENED_WINDOW, WriteDecision.FOLDED
    assert [answer.decision for answer in answers] == [opened, opened, folded, folded, folded]
    assert [event.path for event in events(history.store, FileWritten)] == ["p0", "p1", "p2", "p3", "p4"]


def test_a_batch_is_dated_as_a_whole(history: History) -> None:
    history.register(max_count=3)
    batch = record(history.store, *[Write(workspace="ws", path=f"p{n}") for n in range(3)])
    assert {answer.due_at for answer in batch.accepted.values()} == {START}


def test_good_writes_are_stored_beside_bad_ones(history: History) -> None:
    history.register()
    good, empty = Write(workspace="ws", path="good"), Write(workspace="ws", path="")
    long, unknown = Write(workspace="ws", path="x" * 5000), Write(workspace="nobody", path="a")
    batch = record(history.store, empty, good, long, unknown, good)
    assert sorted(batch.accepted) == [1, 4]
    refused = [(refusal.index, refusal.error) for refusal in batch.refused]
    assert refused == [(0, "InvalidInput"), (2, "InvalidInput"), (3, "NotFound")]
    assert "nobody" in batch.refused[2].detail
    assert len(events(history.store, FileWritten)) == 2


def test_an_unregistered_workspace_leaves_nothing_behind(history: History) -> None:
    batch = record(history.store, Write(workspace="nobody", path="a"))
    assert batch.refused[0].error == "NotFound"
    with history.store.read() as reader:
        assert reader.workspace("nobody") is None


def test_a_first_write_registers_where_that_is_on(history: History) -> None:
    auto = AutoRegistration(executor="simulated", target={"delay": "1s"})
    batch = record(history.store, *[Write(workspace="new", path=path) for path in "ab"], auto=auto)
    assert [answer.decision for answer in batch.accepted.values()] == ["opened_window", "folded"]
    [registered] = events(history.store, WorkspaceRegistered)
    assert (registered.executor, registered.target, registered.fleet) == ("simulated", {"delay": "1s"}, "default")


def test_a_refused_first_write_registers_nothing(history: History) -> None:
    record(history.store, Write(workspace="new", path=""), auto=AutoRegistration(executor="simulated"))
    assert events(history.store, WorkspaceRegistered) == []


def test_an_explicitly_removed_workspace_is_not_registered_again(history: History) -> None:
    history.register()
    history.change(cmd.Remove(reason="gone"))
    batch = record(history.store, Write(workspace="ws", path="a"), auto=AutoRegistration(executor="simulated"))
    assert batch.refused[0].error == "NotFound"
    assert "was removed" in batch.refused[0].detail


def test_the_first_matching_rule_decides(history: History) -> None:
    rules = [
        {"match": ["docs/keep.md"], "quiet": "2s", "max_wait": "4s"},
        {"match": ["docs/**"], "action": "record"},
        {"match": ["*.css"], "action": "reload"},
    ]
    history.register(rules=rules)
    kept, noted, style, plain = history.write("docs/keep.md", "docs/a.md", "a.css", "a.py")
    assert [kept.action, noted.action, style.action, plain.action] == ["restart", "record", "reload", "restart"]
    assert (noted.decision, noted.due_at) == (WriteDecision.RECORDED, None)
    facts = events(history.store, FileWritten)
    assert [fact.quiet_ms for fact in facts] == [2000, None, None, None]
    assert [fact.max_wait_ms for fact in facts] == [4000, None, None, None]
    assert facts[1].rule == "docs/**"
    assert plain.due_at == START + timedelta(seconds=4)  # the max_wait that ends first
    assert history.state().pending_writes == 3


def test_a_recorded_write_opens_no_window(history: History) -> None:
    history.register(rules=[{"match": ["**"], "action": "record"}])
    history.write("a.py")
    history.at(1000)
    history.tick()
    assert history.state().restart is None


@pytest.mark.parametrize(
    ("path", "stored"),
    [("caf\udce9.py", "caf%E9.py"), ("a\x00b", "a%00b"), ("\ud800", "%ED%A0%80"), ("50%\udcff", "50%25%FF")],
)
def test_odd_paths_are_stored_escaped(history: History, path: str, stored: str) -> None:
    history.register()
    history.write(path)
    [fact] = events(history.store, FileWritten)
    assert (fact.path, fact.path_encoding) == (stored, "percent")


State = Callable[[History], None]


def idle(history: History) -> None:
    """Nothing waits, nothing ran."""


def window_open(history: History) -> None:
    history.write("first")
    history.at(5)


def asked_for(history: History) -> None:
    history.request("please", Trigger.MUTATION)


def queued(history: History) -> None:
    history.write("first")
    history.at(15)
    history.queued()


def running(history: History) -> None:
    queued(history)
    history.start()
    history.at(16)


def retrying(history: History) -> None:
    running(history)
    history.fail("no")


def backing_off(history: History) -> None:
    history.register(max_attempts=1)
    retrying(history)


def held(history: History) -> None:
    history.change(cmd.Hold(reason="deploy"))


def held_for_a_minute(history: History) -> None:
    history.change(cmd.Hold(reason="deploy", until=START + MINUTE))


def held_and_queued(history: History) -> None:
    queued(history)
    held(history)


@pytest.mark.parametrize(
    ("state", "decision", "due_s"),
    [
        (idle, "opened_window", 15),
        (window_open, "folded", 20),
        (asked_for, "folded", 0),
        (queued, "folded", 15),
        (running, "opened_window", 75),  # min_interval from the start at 15 s
        (retrying, "folded", 18.5),  # half of retry_backoff after the end at 16 s
        (backing_off, "opened_window", 75),
        (held, "held", None),
        (held_for_a_minute, "held", 60),
        (held_and_queued, "held", None),
    ],
)
def test_what_a_write_leads_to(history: History, state: State, decision: str, due_s: float | None) -> None:
    history.register()
    state(history)
    [answer] = history.write("a.py")
    assert answer.decision == decision
    assert answer.due_at == (None if due_s is None else START + timedelta(seconds=due_s))


def test_a_batch_of_the_most_writes(history: History) -> None:
    answers = write(history.store, "big", *(f"p{n}" for n in range(500)))
    assert len({answer.id for answer in answers}) == 500
    assert history.state("big").pending_writes == 500
