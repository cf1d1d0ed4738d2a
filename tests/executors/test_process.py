from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InvalidTarget, PermanentError, ReadinessTimeout, UnknownOutcome
from orchestrator.ports.executor import Order, Readiness, Receipt
from tests.executors.conftest import Exits
from tests.executors.world import eventually, order_for, processes_of
from workers.executors.process import ProcessExecutor
from workers.supervision.supervisor import ProcessSupervisor

SERVER = """
import socket, sys, os
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    with listener.accept()[0] as caller:
        caller.sendall(open(sys.argv[2], "rb").read())
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def served(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as caller:
        return caller.recv(100)


@pytest.fixture
def executor(supervisor: ProcessSupervisor) -> ProcessExecutor:
    return ProcessExecutor(supervisor)


def until(executor: ProcessExecutor, order: Order, readiness: Readiness) -> None:
    eventually(lambda: executor.probe(order, Receipt()) is readiness)


def failure(executor: ProcessExecutor, order: Order) -> str:
    """Look until a look says that the program has ended before it was ready; return what it says."""
    said: list[str] = []

    def failed() -> bool:
        try:
            executor.probe(order, Receipt())
        except UnknownOutcome as error:
            said.append(str(error))
        return bool(said)

    eventually(failed)
    return said[0]


def test_a_server_is_replaced_and_serves_what_was_written(
    executor: ProcessExecutor, tmp_path: Path, exits: Exits
) -> None:
    page, port = tmp_path / "page", free_port()
    target: dict[str, Any] = {
        # A leader that only starts the server and waits, as `npm start` does.
        "argv": ["sh", "-c", '"$@" & wait', "sh", sys.executable, "-c", SERVER, str(port), str(page)],
        "ready": {"type": "tcp", "port": port, "interval": "10ms"},
    }
    order = order_for(executor, target)
    for text in (b"one", b"two", b"three"):
        page.write_bytes(text)
        executor.restart(order)
        until(executor, order, Readiness.READY)
        assert served(port) == text
    assert exits.seen == []


def test_a_program_that_ends_at_once_is_seen_as_failed(executor: ProcessExecutor) -> None:
    order = order_for(executor, {"argv": ["sh", "-c", "exit 3"], "ready": {"interval": "10s"}})
    executor.restart(order)
    assert "exit code 3" in failure(executor, order)
    assert "--once" in failure(executor, order)


def test_without_ready_it_must_live_one_interval(executor: ProcessExecutor) -> None:
    order = order_for(executor, {"argv": ["sleep", "1000"], "ready": {"interval": "300ms"}})
    executor.restart(order)
    assert executor.probe(order, Receipt()) is Readiness.NOT_YET
    until(executor, order, Readiness.READY)


def test_a_foreign_server_on_the_port_does_not_make_a_dead_child_ready(executor: ProcessExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        ready = {"type": "tcp", "port": foreign.getsockname()[1]}
        order = order_for(executor, {"argv": ["sh", "-c", "exit 1"], "ready": ready})
        executor.restart(order)
        assert "exit code 1" in failure(executor, order)


def test_inspect_names_pid_and_start(executor: ProcessExecutor) -> None:
    order = order_for(executor, {"argv": ["sleep", "1000"]})
    receipt = executor.restart(order)
    token = executor.inspect(order)
    assert token is not None
    assert token in receipt.output
    pid, start = (int(part) for part in token.split(":"))
    assert processes_of(order.workspace) == [pid]
    assert start > 0


def test_what_cannot_be_started_is_permanent_and_is_not_tried_for_ever(
    executor: ProcessExecutor, tmp_path: Path, exits: Exits
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("true")
    bad: list[dict[str, Any]] = [
        {"argv": ["no-such-program"]},
        {"argv": [str(plain)]},
        {"argv": ["true"], "cwd": "/no/such/folder"},
    ]
    for target in bad:
        order = order_for(executor, target)
        with pytest.raises(PermanentError, match="cannot start"):
            executor.restart(order)
        assert executor.inspect(order) is None
    assert list((tmp_path / "process").iterdir()) == []
    assert exits.seen == []


def test_the_child_gets_its_own_environment_and_default_signals(executor: ProcessExecutor, tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = f"env > {said}.new; grep SigIgn /proc/self/status >> {said}.new; mv {said}.new {said}"
    order = order_for(executor, {"argv": ["sh", "-c", f"{script}; sleep 1000"], "env": {"OWN": "wörld"}})
    executor.restart(order)
    eventually(said.exists)
    lines = said.read_text().splitlines()
    assert "OWN=wörld" in lines
    assert f"ORCHESTRATOR_CYCLE={order.cycle}" in lines
    assert ("LC_CTYPE=C.UTF-8" in lines) is (os.environ.get("LC_CTYPE") == "C.UTF-8")
    (ignored,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    assert not ignored & (1 << (signal.SIGPIPE - 1))
    assert not ignored & (1 << (signal.SIGXFSZ - 1))


def test_a_reload_signals_the_child_which_keeps_its_pid(executor: ProcessExecutor, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"trap 'echo reloaded >>{mark}' HUP; : >{mark}; while :; do sleep 0.02; done"
    order = order_for(
        executor, {"argv": ["sh", "-c", script], "reload_signal": "SIGHUP", "ready": {"interval": "50ms"}}
    )
    executor.restart(order)
    eventually(mark.exists)
    before = executor.inspect(order)
    reload = dataclasses.replace(order, kind="reload")
    receipt = executor.restart(reload)
    assert executor.probe(reload, receipt) is Readiness.READY
    eventually(lambda: mark.read_text() == "reloaded\n")
    assert executor.inspect(order) == before
    assert f"HUP was sent to {before}" in receipt.output


def test_a_reload_that_cannot_be_is_refused_and_one_that_ends_the_program_has_failed(executor: ProcessExecutor) -> None:
    deaf = order_for(executor, {"argv": ["sleep", "1000"], "ready": {"interval": "200ms"}})
    executor.restart(deaf)
    before = executor.inspect(deaf)
    with pytest.raises(PermanentError, match="--reload-signal"):
        executor.restart(dataclasses.replace(deaf, kind="reload"))
    assert executor.inspect(deaf) == before
    target = executor.normalise({**deaf.target, "reload_signal": "HUP"})
    with pytest.raises(UnknownOutcome, match="ended on its reload signal HUP"):
        executor.restart(dataclasses.replace(deaf, kind="reload", target=target))


def test_a_command_that_ends_well_at_once_has_done_its_work(executor: ProcessExecutor, exits: Exits) -> None:
    order = order_for(executor, {"argv": ["true"], "ready": {"interval": "10s"}})
    executor.restart(order)
    until(executor, order, Readiness.READY)
    assert executor.inspect(order) is None
    assert exits.seen == []


def test_once_runs_to_its_end_and_is_not_started_again(executor: ProcessExecutor, exits: Exits, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    good = order_for(
        executor, {"argv": ["sh", "-c", f"echo run >>{runs}; sleep 0.3; echo done >>{runs}"], "once": True}
    )
    receipt = executor.restart(good)
    assert runs.read_text() == "run\ndone\n"
    assert executor.probe(good, receipt) is Readiness.READY
    bad = order_for(executor, {"argv": ["sh", "-c", "exit 4"], "once": True})
    with pytest.raises(UnknownOutcome, match="exit code 4"):
        executor.restart(bad)
    long = order_for(executor, {"argv": ["sleep", "1000"], "once": True}, within_s=0.3)
    with pytest.raises(ReadinessTimeout):
        executor.restart(long)
    assert processes_of(long.workspace) == []
    assert exits.seen == []


@pytest.mark.parametrize(
    "target",
    [
        {"once": "yes"},
        {"once": True, "ready": {"type": "tcp", "port": 1}},
        {"once": True, "reload_signal": "HUP"},
        {"stdin": "tty"},
        {"stop_signal": "KILL"},
        {"reload_signal": "NOSUCH"},
    ],
)
def test_what_contradicts_itself_is_refused(executor: ProcessExecutor, target: dict[str, Any]) -> None:
    with pytest.raises(InvalidTarget, match="target field"):
        executor.normalise({"argv": ["true"], **target})


def test_its_own_stop_signal_ends_it(executor: ProcessExecutor, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"trap 'echo int >{mark}; exit 0' INT; trap '' TERM; : >{mark}; while :; do sleep 0.02; done"
    order = order_for(executor, {"argv": ["bash", "-c", script], "stop_signal": "int"})
    executor.restart(order)
    eventually(mark.exists)
    executor.restart(dataclasses.replace(order, target=executor.normalise({"argv": ["sleep", "1000"]})))
    assert mark.read_text() == "int\n"
