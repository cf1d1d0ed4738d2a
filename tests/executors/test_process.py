from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import PermanentError, UnknownOutcome
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
            assert executor.probe(order, Receipt()) is Readiness.NOT_YET
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
