"""The evidence of a restart: an honest bundle is good, and what an attacker with the bundle in hand does is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.audit.verify.evidence import FORMAT, Verdict, verify_bundle, write_bundle
from orchestrator.audit.verify.finding import Fault
from orchestrator.audit.verify.signed_note import make_key
from orchestrator.domain import commands as cmd
from orchestrator.domain.events import ErrorKind, Trigger
from tests.audit.sealed import KEY, ORIGIN, Sealed, sealed
from tests.history import History, TestClock
from tests.memory_store.store import MemoryEventStore

KEYS = [KEY.public]


def told(text: str | bytes, restart: str | None = None) -> Verdict:
    return verify_bundle(text, KEYS, restart)


def faults(text: str | bytes, restart: str | None = None) -> list[Fault]:
    return [finding.fault for finding in told(text, restart).findings]


def rich(history: History) -> tuple[str, str]:
    """Two restarts of ``ws`` among another workspace's events; the second one has all that a restart can have."""
    history.register(quiet="2s", min_interval="1s", max_attempts=3)
    history.register("other", quiet="2s")
    history.write("a", "b")
    history.write("x", workspace="other")
    history.at(5)
    first = history.queued()
    history.start()
    history.write("late", "later")
    history.probe("looks dead")
    history.succeed()
    history.at(6)
    history.change(cmd.Hold(reason="deploy"))
    history.write("during the hold")
    history.request("by hand")
    history.change(cmd.Release(reason="over"))
    history.at(10)
    second = history.queued()
    history.start()
    history.write("y", workspace="other")
    history.write("while it runs")
    history.fail("no")
    history.request("secret changed", Trigger.MUTATION)
    history.at(900)
    history.start()
    history.succeed()
    history.write("after")
    history.change(cmd.Hold(reason="night"))
    return first, second


@pytest.fixture(scope="module")
def log() -> tuple[Sealed, str, str]:
    clock = TestClock()
    history = History(MemoryEventStore(clock), clock)
    first, second = rich(history)
    return sealed(history.store), first, second


def test_honest_bundles_are_good(log: tuple[Sealed, str, str]) -> None:
    whole, *restarts = log

    for restart in restarts:
        verdict = told(whole.bundle(restart), restart)
        assert verdict.findings == ()
        assert verdict.restart == restart
        assert verdict.checkpoint is not None
        assert (verdict.checkpoint.origin, verdict.checkpoint.size) == (ORIGIN, whole.size)
        assert verdict.proven == len(whole.indexes(restart)) > 5


def gives_up(history: History) -> None:
    history.start()
    history.fail("never", kind=ErrorKind.PERMANENT)


def is_retried_after_a_give_up(history: History) -> None:
    gives_up(history)
    history.request("again")
    history.at(10)
    history.tick()
    history.start()
    history.succeed()


def is_cancelled(history: History) -> None:
    restart = history.state().restart
    assert restart is not None
    history.cancel(restart.id, "not now")


def is_removed_while_it_runs(history: History) -> None:
    history.start()
    history.write("too late")
    history.change(cmd.Remove(reason="gone"))


def is_abandoned(history: History) -> None:
    history.start()
    history.at(900)
    history.tick()
    history.start()
    history.succeed()


ENDS = [gives_up, is_retried_after_a_give_up, is_cancelled, is_removed_while_it_runs, is_abandoned]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: str(end.__name__))
def test_every_way_to_settle_is_told(history: History, end: Callable[[History], None]) -> None:
    history.register(quiet="2s", min_interval="1s")
    history.write("a", "b")
    history.at(5)
    history.queued()
    end(history)
    whole = sealed(history.store)

    for restart in {event["data"]["restart"] for event in whole.events if event["type"] == "RestartQueued"}:
        assert told(whole.bundle(restart), restart).findings == ()
        assert_no_event_can_be_left_out(whole, restart)


def assert_no_event_can_be_left_out(whole: Sealed, restart: str) -> None:
    indexes = whole.indexes(restart)
    answered_to = max(whole.events[at]["data"].get("to_position", 0) for at in indexes)
    for left_out in indexes:
        event = whole.events[left_out]
        kept = whole.exhibits([at for at in indexes if at != left_out])
        found = faults(write_bundle(ORIGIN, restart, whole.note(), kept))
        may_go = event["version"] is None and (event["type"] != "FileWritten" or event["position"] > answered_to)
        assert bool(found) != may_go, f"{event['type']} at {event['position']} can be left out: {found}"


def test_no_event_that_counts_can_be_left_out(log: tuple[Sealed, str, str]) -> None:
    whole, *restarts = log

    for restart in restarts:
        assert_no_event_can_be_left_out(whole, restart)


def test_the_first_gap_is_named(log: tuple[Sealed, str, str]) -> None:
    whole, _, second = log
    failed = next(at for at, event in enumerate(whole.events) if event["type"] == "CycleFailed")
    after = next(
        event for event in whole.events[failed + 1 :] if event["version"] == whole.events[failed]["version"] + 1
    )
    kept = [at for at in whole.indexes(second) if at != failed]
    (found,) = told(write_bundle(ORIGIN, second, whole.note(), whole.exhibits(kept))).findings

    assert (found.fault, found.position) == (Fault.OMITTED, after["position"])
    assert "the decisions between them were left out" in found.message


def test_a_write_left_out_is_missed_by_the_count(log: tuple[Sealed, str, str]) -> None:
    whole, _, second = log
    queued = next(event for event in whole.events if event["data"].get("restart") == second)
    kept = [at for at in whole.indexes(second) if whole.events[at]["data"].get("path") != "during the hold"]
    (found,) = told(write_bundle(ORIGIN, second, whole.note(), whole.exhibits(kept))).findings

    assert (found.fault, found.position) == (Fault.OMITTED, queued["position"])
    assert "RestartQueued records 3 writes" in found.message
    assert "the bundle holds 2: some were left out" in found.message


def test_a_cut_end_is_unsettled(log: tuple[Sealed, str, str]) -> None:
    whole, first, _ = log
    (found,) = told(write_bundle(ORIGIN, first, whole.note(), whole.exhibits(whole.indexes(first)[:-1]))).findings

    assert found.fault is Fault.UNSETTLED
    assert "its end was left out, or had not come yet" in found.message


def edited(bundle: str, change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(bundle)
    change(document)
    return json.dumps(document, ensure_ascii=False)


def swap(key: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        one, two = document["events"][2], document["events"][3]
        one[key], two[key] = two[key], one[key]

    return change


def in_line(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        lines = [event["line"] for event in document["events"]]
        assert any(old in line for line in lines)
        for event in document["events"]:
            event["line"] = event["line"].replace(old, new)

    return change


ATTACKS: dict[str, tuple[Callable[[dict[str, Any]], object], Fault]] = {
    "edit a line": (in_line("by hand", "by nobody"), Fault.NOT_INCLUDED),
    "add a space": (in_line('{"position"', '{ "position"'), Fault.NOT_INCLUDED),
    "swap lines": (swap("line"), Fault.NOT_INCLUDED),
    "swap proofs": (swap("proof"), Fault.NOT_INCLUDED),
    "swap indexes": (swap("index"), Fault.NOT_INCLUDED),
    "turn the order round": (lambda document: document["events"].reverse(), Fault.OUT_OF_ORDER),
    "tell an event twice": (lambda document: document["events"].insert(1, document["events"][1]), Fault.OUT_OF_ORDER),
    "no events": (lambda document: document["events"].clear(), Fault.WRONG_RESTART),
    "no proof": (lambda document: document["events"][0]["proof"].clear(), Fault.NOT_INCLUDED),
    "proof that is not base64": (lambda document: document["events"][0].update(proof=["?"]), Fault.NOT_INCLUDED),
    "another name": (lambda document: document.update(restart="rst_9999"), Fault.WRONG_RESTART),
    "another origin": (lambda document: document.update(origin="evil.example.com"), Fault.WRONG_ORIGIN),
    "another format": (lambda document: document.update(format=f"{FORMAT}0"), Fault.MALFORMED),
    "an unknown field": (lambda document: document.update(extra=1), Fault.MALFORMED),
    "no checkpoint": (lambda document: document.pop("checkpoint"), Fault.MALFORMED),
    "negative index": (lambda document: document["events"][0].update(index=-1), Fault.NOT_INCLUDED),
    "index as text": (lambda document: document["events"][0].update(index="1"), Fault.MALFORMED),
    "edit the checkpoint": (
        lambda document: document.update(checkpoint=document["checkpoint"].replace(ORIGIN, "x", 1)),
        Fault.BAD_SIGNATURE,
    ),
    "no signature": (
        lambda document: document.update(checkpoint=document["checkpoint"].split("—")[0]),
        Fault.MALFORMED,
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_changed_in_a_bundle_is_found(log: tuple[Sealed, str, str], attack: str) -> None:
    whole, _, second = log
    change, fault = ATTACKS[attack]

    assert faults(edited(whole.bundle(second), change))[:1] == [fault]


def test_an_edited_line_is_named_by_its_position(log: tuple[Sealed, str, str]) -> None:
    whole, _, second = log
    position = next(event["position"] for event in whole.events if event["data"].get("reason") == "by hand")
    (found,) = told(edited(whole.bundle(second), in_line("by hand", "by nobody"))).findings

    assert found.position == position
    assert "line, index or proof were altered" in found.message


def test_another_restarts_bundle_is_not_taken(log: tuple[Sealed, str, str]) -> None:
    whole, first, second = log
    renamed = edited(whole.bundle(first), lambda document: document.update(restart=second))

    assert faults(whole.bundle(first), second) == [Fault.WRONG_RESTART]
    assert faults(renamed, second) == [Fault.WRONG_RESTART]
    assert f"the events tell of {first}, not of {second}" in told(renamed).findings[0].message


def test_an_older_checkpoint_has_no_leaf_for_the_events(log: tuple[Sealed, str, str]) -> None:
    whole, _, second = log
    old = whole.indexes(second)[-1]
    (found,) = told(write_bundle(ORIGIN, second, whole.note(old), whole.exhibits(whole.indexes(second)))).findings
    early = whole.indexes(second)[:3]
    mixed = write_bundle(ORIGIN, second, whole.note(old), whole.exhibits(early))

    assert found.fault is Fault.NOT_INCLUDED  # the proofs are those of the newer tree, so the first of them fails
    assert faults(mixed) == [Fault.NOT_INCLUDED]
    cut = [*whole.exhibits(whole.indexes(second)[:-1], old), *whole.exhibits([old])]
    (found,) = told(write_bundle(ORIGIN, second, whole.note(old), cut)).findings
    assert (found.fault, found.position) == (Fault.NOT_SEALED, whole.events[old]["position"])
    assert "the checkpoint is older than the event" in found.message


def test_an_older_checkpoint_with_its_own_proofs_is_good(log: tuple[Sealed, str, str]) -> None:
    whole, _, second = log
    size = whole.indexes(second)[-1] + 1

    assert faults(write_bundle(ORIGIN, second, whole.note(size), whole.exhibits(whole.indexes(second), size))) == []


def test_another_workspaces_event_does_not_pass(log: tuple[Sealed, str, str]) -> None:
    whole, _, second = log
    foreign = next(at for at, event in enumerate(whole.events) if event["data"].get("path") == "y")
    mixed = sorted([*whole.indexes(second), foreign])
    (found,) = told(write_bundle(ORIGIN, second, whole.note(), whole.exhibits(mixed))).findings

    assert (found.fault, found.position) == (Fault.FOREIGN_EVENT, whole.events[foreign]["position"])


def test_a_wrong_key_is_said(log: tuple[Sealed, str, str]) -> None:
    whole, first, _ = log
    stranger = make_key(ORIGIN, b"s" * 32).public
    verdict = verify_bundle(whole.bundle(first), [stranger])

    assert [finding.fault for finding in verdict.findings] == [Fault.WRONG_KEY]
    assert KEY.public.label in verdict.findings[0].message
    assert stranger.label in verdict.findings[0].message
    assert (verdict.checkpoint, verdict.proven) == (None, 0)


def changed(whole: Sealed, restart: str, kind: str, data: dict[str, object]) -> Verdict:
    """Seal a log that contradicts itself: the last event of one type in the restart's bundle has other data."""
    indexes = whole.indexes(restart)
    at = [at for at in indexes if whole.events[at]["type"] == kind][-1]
    event = whole.events[at]
    lines = [*whole.lines]
    lines[at] = json.dumps({**event, "data": {**event["data"], **data}})
    forged = Sealed(lines)
    return told(write_bundle(ORIGIN, restart, forged.note(), forged.exhibits(indexes)))


@pytest.mark.parametrize(
    ("kind", "data", "fault", "message"),
    [
        ("CycleStarted", {"writes": 1}, Fault.CONTRADICTION, "records 1 writes"),
        ("CycleStarted", {"requests": 9}, Fault.OMITTED, "records 9 requests"),
        ("CycleStarted", {"from_position": 1}, Fault.CONTRADICTION, "does not go on from"),
        ("CycleStarted", {"to_position": 10**6}, Fault.CONTRADICTION, "does not go on from"),
        ("CycleSucceeded", {"cycle": "cyc_x"}, Fault.CONTRADICTION, "CycleSucceeded ends cyc_x, while cyc_"),
        ("CycleSucceeded", {"writes": 99}, Fault.OMITTED, "CycleSucceeded records 99 writes"),
        ("CycleFailed", {"restart": "rst_x"}, Fault.CONTRADICTION, "a cycle starts while"),
        ("RestartQueued", {"writes": "many"}, Fault.MALFORMED, "the data of RestartQueued"),
        ("CycleFailed", {"cycle": None}, Fault.MALFORMED, "the data of CycleFailed"),
    ],
)
def test_a_log_that_contradicts_itself_is_found(
    log: tuple[Sealed, str, str], kind: str, data: dict[str, object], fault: Fault, message: str
) -> None:
    whole, _, second = log
    (found,) = changed(whole, second, kind, data).findings

    assert found.fault is fault
    assert message in found.message
    assert found.position is not None


LINES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.fixed_dictionaries(
        {
            "position": st.integers(-1, 9),
            "workspace": st.just("ws") | inner,
            "version": st.integers(0, 3) | st.none(),
            "type": st.sampled_from(["RestartQueued", "CycleStarted", "CycleSucceeded", "WritesWaived", "FileWritten"]),
            "recorded_at": st.text(max_size=2),
            "data": st.dictionaries(st.sampled_from(["restart", "cycle", "from_position", "writes"]), inner),
        }
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.lists(LINES, min_size=1, max_size=4))
def test_whatever_was_sealed_is_judged(values: list[object]) -> None:
    whole = Sealed([json.dumps(value if isinstance(value, dict) else {"data": {}, "x": value}) for value in values])
    bundle = write_bundle(ORIGIN, "rst_1", whole.note(), whole.exhibits(range(whole.size)))

    assert told(bundle).proven == whole.size
    assert faults(bundle)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_bundle_never_passes_and_never_raises(log: tuple[Sealed, str, str], data: st.DataObject) -> None:
    whole, first, _ = log
    good = whole.bundle(first).encode()
    at = data.draw(st.integers(0, len(good) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    bad = good[:at] + bytes([byte]) + good[at + 1 :]

    assert faults(good) == []
    assert faults(bad)
    assert faults(good[:at])


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_no_text_raises(text: str | bytes) -> None:
    assert faults(text) == [Fault.MALFORMED]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format":' + "[" * 100_000, '"\ud800"', b"\xff", "", "null", "[]"])
def test_hostile_json_is_malformed(text: str | bytes) -> None:
    assert faults(text) == [Fault.MALFORMED]


def test_a_line_that_is_no_event_is_not_included(log: tuple[Sealed, str, str]) -> None:
    whole, first, _ = log
    first_event, *rest = whole.exhibits(whole.indexes(first))
    bundle = write_bundle(ORIGIN, first, whole.note(), [replace(first_event, line="\x00"), *rest])

    assert faults(bundle) == [Fault.NOT_INCLUDED]


def test_the_verifier_loads_nothing_of_the_engine() -> None:
    program = """
import importlib, pkgutil, sys
import orchestrator.audit.verify as package
for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("orchestrator", "workers", "migrations")))
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert "orchestrator.audit.verify.evidence" in loaded
    outside = [name for name in loaded if not name.startswith("orchestrator.audit.verify")]
    assert outside == ["orchestrator", "orchestrator.audit"]
