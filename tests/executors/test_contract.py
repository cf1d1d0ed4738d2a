"""What every executor promises, over all of them (orchestrator.ports.store.Executor)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ExecutionCancelled, InvalidTarget, ReadinessTimeout
from orchestrator.ports.executor import Executor, Readiness
from tests.executors.world import eventually, in_thread, order_for, processes_of, unique_workspace
from workers.executors.command import CommandExecutor
from workers.executors.process import ProcessExecutor
from workers.executors.simulated import SimulatedExecutor
from workers.supervision.supervisor import ProcessSupervisor

# Only a KILL ends it. The file $READY says that it got that far, the file $TERMED that it was asked to end.
DEAF = ["sh", "-c", 'trap \': > "$TERMED"\' TERM; : > "$READY"; while :; do sleep 1000; done']
LIVING = ["sleep", "1000"]


@dataclass(frozen=True)
class Subject:
    """One executor with targets that show what the suite asks about."""

    executor: Executor
    quick: dict[str, Any]
    hanging: dict[str, Any]
    full: dict[str, Any]
    wrong: list[tuple[dict[str, Any], str]]
    has_token: bool
    is_acting: Callable[[], bool]
    prepare: Callable[[str], None] = lambda _: None


BAD_READY: list[tuple[dict[str, Any], str]] = [
    ({"argv": ["x"], "ready": {"type": "smoke"}}, "ready.type"),
    ({"argv": ["x"], "ready": {"type": "tcp"}}, "ready.port"),
    ({"argv": ["x"], "ready": {"type": "tcp", "port": 70000}}, "ready.port"),
    ({"argv": ["x"], "ready": {"type": "tcp", "port": 80, "url": "http://a"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "tcp", "port": 80, "host": "a..b"}}, "ready.host"),
    ({"argv": ["x"], "ready": {"type": "http", "url": "ftp://a/b"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "http", "url": "http://a..b/"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "http", "url": f"http://{'a' * 64}/"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "http", "url": "http://a:99999/"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "http", "url": "http://"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "http", "url": "http://u:p@a/"}}, "ready.url"),
    ({"argv": ["x"], "ready": {"type": "http", "url": "http://a", "status": "200"}}, "ready.status"),
    ({"argv": ["x"], "ready": {"interval": "0s"}}, "ready.interval"),
    ({"argv": ["x"], "ready": {"timeout": "1h"}}, "ready.timeout"),
    ({"argv": ["x"], "ready": []}, "ready"),
]
BAD_PROGRAM: list[tuple[dict[str, Any], str]] = [
    ({}, "argv"),
    ({"argv": "sh -c true"}, "argv"),
    ({"argv": []}, "argv"),
    ({"argv": [""]}, "argv[0]"),
    ({"argv": ["a", 1]}, "argv[1]"),
    ({"argv": ["a\0b"]}, "argv[0]"),
    ({"argv": ["a", "\ud800"]}, "argv[1]"),
    ({"argv": ["x"], "cwd": 3}, "cwd"),
    ({"argv": ["x"], "env": ["A=B"]}, "env"),
    ({"argv": ["x"], "env": {"A": 1}}, "env.A"),
    ({"argv": ["x"], "env": {"A=B": "c"}}, "env.A=B"),
    ({"argv": ["x"], "env": {"ORCHESTRATOR_FENCE": "1"}}, "env.ORCHESTRATOR_FENCE"),
    ({"argv": ["x"], "grace": 1.5}, "grace"),
    ({"argv": ["x"], "grace": "soon"}, "grace"),
    ({"argv": ["x"], "grace": "-1s"}, "grace"),
    ({"argv": ["x"], "shell": True}, "shell"),
    *BAD_READY,
]
FULL_PROGRAM: dict[str, Any] = {
    "argv": ["sh", "-c", "true"],
    "cwd": "/",
    "env": {"B": "2", "A": ""},
    "grace": 1,
    "ready": {"type": "http", "url": "http://127.0.0.1:1/x", "status": 204, "interval": "1500ms", "timeout": 1},
}


def command_subject(tmp_path: Path) -> Subject:
    mark = tmp_path / "ready"
    return Subject(
        executor=CommandExecutor(),
        quick={"argv": ["true"]},
        hanging={"argv": DEAF, "env": {"READY": str(mark), "TERMED": "/dev/null"}, "grace": "200ms"},
        full={**FULL_PROGRAM, "timeout": "90s"},
        wrong=[*BAD_PROGRAM, ({"argv": ["x"], "timeout": 0}, "timeout"), ({"argv": ["x"], "timeout": None}, "timeout")],
        has_token=False,
        is_acting=mark.exists,
    )


def simulated_subject(tmp_path: Path) -> Subject:
    ledger = tmp_path / "ledger.ndjson"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"delay": 0.5}, "delay"),
        ({"delay": True}, "delay"),
        ({"fail_first": -1}, "fail_first"),
        ({"fail_first": True}, "fail_first"),
        ({"hang_first": "1"}, "hang_first"),
        ({"error_kind": "funny"}, "error_kind"),
        ({"ledger": ""}, "ledger"),
        ({"argv": ["x"]}, "argv"),
    ]
    return Subject(
        executor=SimulatedExecutor(),
        quick={},
        hanging={"hang_first": 1, "ledger": str(ledger)},
        full={"delay": 90, "fail_first": 1, "hang_first": 2, "ledger": "l", "error_kind": "unknown"},
        wrong=wrong,
        has_token=True,
        is_acting=ledger.exists,
    )


def process_subject(tmp_path: Path, supervisor: ProcessSupervisor) -> Subject:
    ready, termed = tmp_path / "ready", tmp_path / "termed"
    executor = ProcessExecutor(supervisor)

    def start_a_deaf_one(workspace: str) -> None:
        old = {"argv": DEAF, "env": {"READY": str(ready), "TERMED": str(termed)}, "grace": "1m"}
        executor.restart(order_for(executor, old, workspace=workspace))
        eventually(ready.exists)

    return Subject(
        executor=executor,
        quick={"argv": LIVING},
        hanging={"argv": LIVING},
        full=FULL_PROGRAM,
        wrong=[*BAD_PROGRAM, ({"argv": ["x"], "timeout": "1s"}, "timeout")],
        has_token=True,
        is_acting=termed.exists,
        prepare=start_a_deaf_one,
    )


@pytest.fixture(params=["command", "simulated", "process"])
def subject(request: pytest.FixtureRequest, tmp_path: Path, supervisor: ProcessSupervisor) -> Subject:
    match request.param:
        case "command":
            return command_subject(tmp_path)
        case "simulated":
            return simulated_subject(tmp_path)
        case _:
            return process_subject(tmp_path, supervisor)


def test_normalise_is_idempotent_and_json_without_floats(subject: Subject) -> None:
    for target in (subject.quick, subject.full):
        normal = subject.executor.normalise(target)
        assert subject.executor.normalise(normal) == normal
        assert json.loads(json.dumps(normal), parse_float=pytest.fail) == normal


def test_durations_become_their_shortest_spelling(subject: Subject) -> None:
    text = json.dumps(subject.executor.normalise(subject.full))
    assert '"1m30s"' in text or '"1s500ms"' in text


def test_wrong_targets_are_refused_by_the_name_of_the_field(subject: Subject) -> None:
    for target, named in [*subject.wrong, ({**subject.full, "wobble": 1}, "wobble")]:
        with pytest.raises(InvalidTarget) as refusal:
            subject.executor.normalise(target)
        assert refusal.value.field == named, target
        assert named in str(refusal.value)


def test_a_quick_restart_succeeds_and_becomes_ready(subject: Subject) -> None:
    order = order_for(subject.executor, subject.quick)
    receipt = subject.executor.restart(order)
    eventually(lambda: subject.executor.probe(order, receipt) is Readiness.READY)


def test_inspect_changes_with_a_restart(subject: Subject) -> None:
    workspace = unique_workspace()
    first, second = (order_for(subject.executor, subject.quick, workspace=workspace) for _ in range(2))
    assert subject.executor.inspect(first) is None
    subject.executor.restart(first)
    before = subject.executor.inspect(second)
    assert (before is not None) is subject.has_token
    assert subject.executor.inspect(second) == before
    subject.executor.restart(second)
    assert (subject.executor.inspect(second) != before) is subject.has_token


def test_past_the_deadline_it_raises_a_timeout_soon(subject: Subject) -> None:
    workspace = unique_workspace()
    subject.prepare(workspace)
    order = order_for(subject.executor, subject.hanging, workspace=workspace, within_s=0.3)
    with pytest.raises(ReadinessTimeout):
        subject.executor.restart(order)
    assert 0 <= time.monotonic() - order.deadline_s < 1.5


def test_a_deadline_that_has_passed_already_means_no_act(subject: Subject) -> None:
    order = order_for(subject.executor, subject.hanging, within_s=-1)
    with pytest.raises(ReadinessTimeout):
        subject.executor.restart(order)
    assert not subject.is_acting()
    assert processes_of(order.workspace) == []


def test_stop_cancels_soon_and_leaves_no_process(subject: Subject) -> None:
    stop = threading.Event()
    workspace = unique_workspace()
    subject.prepare(workspace)
    order = order_for(subject.executor, subject.hanging, workspace=workspace, stop=stop, within_s=60)
    begun_s = time.monotonic()
    with in_thread(lambda: subject.executor.restart(order)) as raised:
        eventually(subject.is_acting)
        stop.set()
    assert [type(error) for error in raised] == [ExecutionCancelled]
    assert time.monotonic() - begun_s < 2
    assert processes_of(workspace) == []


def test_a_stop_that_is_set_already_means_no_act(subject: Subject) -> None:
    stop = threading.Event()
    stop.set()
    order = order_for(subject.executor, subject.hanging, stop=stop)
    with pytest.raises(ExecutionCancelled):
        subject.executor.restart(order)
    assert not subject.is_acting()
