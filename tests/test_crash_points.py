"""Crash points: every name is in the code, every change has one on each side, and they do what they say."""

from __future__ import annotations

import ast
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from orchestrator import crash_points
from orchestrator.crash_points import KILLED, POINTS, VARIABLE, Named, arm, crash_point
from orchestrator.domain.serving import Serving
from orchestrator.errors import InvalidInput
from orchestrator.ports.sealing import StoredCheckpoint
from orchestrator.ports.store import Counters, EventStore
from orchestrator.ports.sums import SumsToAdd
from orchestrator.ports.unit import Unit
from orchestrator.ports.verification import StoredVerification
from orchestrator.storage.opening import open_store
from tests.storage.samples import file_written, log
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = StoredCheckpoint(
    tree_size=1,
    position=1,
    root="root",
    note="note",
    previous_size=0,
    consistency=(),
    sealed_at=datetime(2026, 1, 1, tzinfo=UTC),
    exported_at=None,
)
VERIFICATION = StoredVerification(
    position=1, violations={}, imbalance=0, verified_at=datetime(2026, 1, 1, tzinfo=UTC), state=b""
)
NO_SUMS = SumsToAdd(after=0, position=1, workspaces={}, backlog={}, activity={}, restarts={}, failures={})
WRITES = Unit(name="test", workspaces=("ws",), step=lambda tx: tx.append([file_written()]))
READS = {"read", "check", "close"}
"""The store's methods that change nothing."""


@pytest.fixture
def reached() -> Iterator[list[tuple[str, list[str]]]]:
    """Every crash point that this process comes to, with the types of the events at hand."""
    seen: list[tuple[str, list[str]]] = []

    def note(name: str, events: Sequence[Named]) -> None:
        seen.append((name, [event.type for event in events]))

    crash_points.watch(note)
    yield seen
    crash_points.watch(None)


def names_in_the_code() -> set[str]:
    """Return what every call of ``crash_point`` names; one that names nothing literally fails."""
    found = set()
    for path in sorted([*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash_point":
                (name, *_) = node.args
                assert isinstance(name, ast.Constant), f"{path}: a crash point's name is written out"
                found.add(str(name.value))
    return found


def test_every_name_is_in_the_code_and_every_one_in_the_code_is_listed() -> None:
    assert names_in_the_code() == set(POINTS)


CHANGES: dict[str, Callable[[EventStore], object]] = {
    "write": lambda store: log(store, file_written()),
    "commit": lambda store: store.commit(WRITES),
    "submit": lambda store: store.submit(WRITES, lambda outcome: None),
    "renew_leases": lambda store: store.renew_leases({"ws": (1, 1000)}),
    "ticked": lambda store: store.ticked(),
    "note_key_uses": lambda store: store.note_key_uses({"key_1": datetime(2026, 1, 1, tzinfo=UTC)}),
    "note_worker": lambda store: store.note_worker("w", "host", Serving(executors=frozenset({"command"})), 4),
    "save_counters": lambda store: store.save_counters(Counters(position=1, sums={}), expected_position=0),
    "add_file_counts": lambda store: store.add_file_counts([], position=1, expected_position=0),
    "add_sums": lambda store: store.add_sums(NO_SUMS),
    "save_verification": lambda store: store.save_verification(VERIFICATION, expected_position=None),
    "save_checkpoint": lambda store: store.save_checkpoint(CHECKPOINT, []),
    "mark_exported": lambda store: store.mark_exported(1),
    "note_seal_failure": lambda store: store.note_seal_failure("a test"),
    "forget_answers": lambda store: store.forget_answers(datetime(2026, 1, 1, tzinfo=UTC)),
}


def test_every_change_of_the_store_is_tried_below() -> None:
    methods = {name for name, _ in inspect.getmembers(EventStore, inspect.isfunction) if not name.startswith("_")}
    assert methods - READS == set(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_has_a_crash_point_on_each_side_of_its_commit(
    change: str, sqlite_url: str, reached: list[tuple[str, list[str]]]
) -> None:
    store = open_store(sqlite_url)
    CHANGES[change](store)
    store.close()

    kind = "write" if change.startswith(("write", "commit", "submit")) else "change"
    names = [name for name, _ in reached]
    assert names[0] == f"{kind}.begin"
    assert names[-2:] == [f"{kind}.commit", f"{kind}.committed"]
    assert change not in ("write", "commit") or reached[-1] == ("write.committed", ["FileWritten"])


@pytest.mark.parametrize("wanted", ["", "nowhere", "act.begin:0", "act.begin:x", "act.begin:1:go", "act.begin/:1"])
def test_a_name_that_is_none_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidInput, match=r"act\.begin, act\.end"):
        arm({VARIABLE: wanted})


def test_unset_nothing_happens(reached: list[tuple[str, list[str]]]) -> None:
    arm({})
    crash_points.watch(None)
    crash_point("act.begin")

    assert reached == []


def visiting(times: int) -> list[str]:
    words = (
        "import os; from orchestrator.crash_points import arm, crash_point; arm(os.environ)\n"
        f"for number in range({times}): crash_point('act.end'); crash_point('act.begin'); print(number, flush=True)"
    )
    return [sys.executable, "-c", words]


def test_the_process_dies_at_the_nth_visit() -> None:
    environment = os.environ | {VARIABLE: "act.begin:3"}
    ended = subprocess.run(visiting(5), env=environment, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (KILLED, "0\n1\n")


def test_or_it_stands_still_until_it_is_told_to_go_on() -> None:
    environment = os.environ | {VARIABLE: "act.begin:2:stop"}
    with subprocess.Popen(visiting(3), env=environment, stdout=subprocess.PIPE, text=True) as frozen:
        process = psutil.Process(frozen.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, what="it stands still")
        frozen.send_signal(signal.SIGCONT)
        said, _ = frozen.communicate(timeout=10)

    assert (frozen.returncode, said) == (0, "0\n1\n2\n")


def test_only_transactions_with_the_event_count() -> None:
    class Event:
        def __init__(self, type_: str) -> None:
            self.type = type_

    counted = crash_points._Countdown("write.commit", "CycleStarted", 9, lambda: None)
    counted("write.commit", [Event("FileWritten")])
    counted("write.commit", [Event("FileWritten"), Event("CycleStarted")])
    counted("write.committed", [Event("CycleStarted")])

    assert counted.left == 8
