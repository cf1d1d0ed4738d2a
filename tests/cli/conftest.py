from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from orchestrator.cli import main
from orchestrator.domain import commands as cmd
from orchestrator.storage.opening import open_store
from tests.history import History, TestClock
from tests.system.fork_server import ForkServer
from tests.system.processes import OrchestratorProcess


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command in this process."""
    handlers = logging.getLogger().handlers

    def ran(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    yield ran
    # The command has sent the logs of this process to the stream that it was captured with.
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


@dataclass(frozen=True)
class Recorded:
    """A database with a covered burst, a pending write and a held workspace, and the ids in it."""

    data: Path
    url: str
    restart: str
    covered: str
    pending: str


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, migrate_database: Callable[[str], None]) -> Recorded:
    """Real history in a SQLite database that the tests only read."""
    data = tmp_path_factory.mktemp("recorded")
    url = f"sqlite:///{data / 'orchestrator.db'}"
    migrate_database(url)
    clock = TestClock()
    store = open_store(url, clock)
    history = History(store, clock)
    history.register("ws", fleet="blue", quiet="5s")
    history.register("held")
    history.change(cmd.Hold(reason="freeze"), "held")
    [covered, *_] = history.write("src/a.py", "src/[b].py", "sp\x1b[31mace.py")
    history.at(5)
    restart = history.queued()
    history.start()
    history.at(7)
    history.succeed()
    history.at(8)
    [pending] = history.write("src/late.py")
    store.close()
    return Recorded(data=data, url=url, restart=restart, covered=covered.id, pending=pending.id)


SLOW = ("quiet=10m", "max_wait=1h")
"""A policy under which nothing is restarted while a test looks."""


@dataclass(frozen=True)
class Server:
    """A running `orchestrator up`."""

    url: str
    data: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, forks: ForkServer) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("up"), forks) as server:
        yield server


@contextmanager
def running(data: Path, forks: ForkServer, port: int = 0) -> Iterator[Server]:
    args = ("up", "--data", str(data), "--port", str(port))
    process = OrchestratorProcess("up", args, env=os.environ, log=data / "up.log", forks=forks)
    try:
        yield Server(process.url(), data)
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.alive:
            process.kill()


def act(run: Run, server: Server, *arguments: str) -> Any:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ORCHESTRATOR_DATA", str(server.data))  # where it finds the key of that `up`
        ran = run(*arguments, "--url", server.url, "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def read(run: Run, server: Server, *arguments: str) -> Any:
    ran = run(*arguments, "--data", str(server.data), "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def register(run: Run, server: Server, workspace: str, *more: str) -> Any:
    policy = [word for number in SLOW for word in ("--policy", number)]
    return act(run, server, "register", workspace, "--executor", "simulated", *policy, *more)
