"""A process that carries a restart out is killed in mid-command: what it left is ended, then the restart goes on."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.domain import events as ev
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.system.deployment import STOPS_WITHIN_S, Deployment, Embedded, Production, running
from tests.system.fork_server import ForkServer
from tests.system.history import History
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

ACT = """
import os, signal, subprocess, sys, time
acts, kind, fence = sys.argv[1], sys.argv[2], os.environ["ORCHESTRATOR_FENCE"]

def say(what):
    with open(acts, "a") as file:
        file.write(f"{what} {fence} {os.getpid()} {time.monotonic()}\\n")

def bye(*_):
    say("end")
    os._exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "deaf" else bye)
if kind == "moved" and os.fork():
    time.sleep(1000)
if kind == "moved":
    os.setsid()
if kind == "grandchild":
    subprocess.Popen(["sleep", "1000"])
say("begin")
while fence == "1":
    time.sleep(0.01)
say("end")
"""
"""Lives until it is told to end, at the first fence; ends at once at every later one."""

KINDS = ("plain", "deaf", "grandchild", "moved")


@dataclass(frozen=True)
class Begun:
    """A workspace whose command is in the middle of its first act, and the file in which the command says so."""

    workspace: str
    acts: Path


def begin(deployment: Deployment, folder: Path, *kinds: str, lease: str = "20s") -> list[Begun]:
    """Let a workspace of each kind be in the middle of its act, all at once."""
    script = folder / "act.py"
    script.write_text(ACT)
    begun = [Begun(f"ws-{kind}-{folder.name}", folder / f"acts-{kind}") for kind in kinds]
    for one, kind in zip(begun, kinds, strict=True):
        target = {"argv": [sys.executable, str(script), str(one.acts), kind], "grace": "500ms"}
        policy = {"lease": lease}
        deployment.client.register(one.workspace, {"executor": "command", "target": target, "policy": policy})
        deployment.write(one.workspace, "a")
    for one in begun:
        wait_until(one.acts.exists, what=f"the command of {one.workspace} has begun")
    return begun


def await_the_next(deployment: Deployment, begun: Begun, *, within_s: float) -> History:
    wait_until(
        lambda: any(line.split()[:2] == ["end", "2"] for line in begun.acts.read_text().splitlines()),
        what=f"the next attempt of {begun.workspace} has ended",
        timeout_s=within_s,
    )
    assert_one_at_a_time(begun.acts)
    return deployment.history(begun.workspace)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_one_at_a_time(acts: Path) -> None:
    """The second act began after the first had ended, or after no process of it was left."""
    lines = [line.split() for line in acts.read_text().splitlines()]
    first = [line for line in lines if line[1] == "1"]
    assert not any(runs(int(pid)) for _, _, pid, _ in first)
    assert lines.index(next(line for line in lines if line[1] == "2")) == len(first), lines


def child_of(parent: OrchestratorProcess) -> psutil.Process:
    found: list[psutil.Process] = wait_until(lambda: psutil.Process(parent.pid).children(), what="there is a child")
    return found[0]


def reasons(history: History) -> list[str]:
    return [cycle.end.reason.value for cycle in history.cycles if isinstance(cycle.end, ev.CycleAbandoned)]


class _UpForAll(Embedded):
    """With a slot for a workspace of each kind."""

    def settings(self) -> dict[str, str]:
        return super().settings() | {"ORCHESTRATOR_SLOTS": str(len(KINDS))}


def test_up_is_killed(tmp_path: Path, forks: ForkServer) -> None:
    with running(_UpForAll(tmp_path, forks=forks)) as deployment:
        begun = begin(deployment, tmp_path, *KINDS)
        deployment.processes["up"].kill()
        deployment.start_up()
        for one in begun:
            assert reasons(await_the_next(deployment, one, within_s=5)) == ["worker_died"], one


class _OneWorker(Production):
    """With nobody else to go on, what goes on is what the parent started. Each test starts the worker for itself."""

    SLOTS = len(KINDS)

    def start(self) -> None:
        self.prepare()
        self.run("beat", "beat")
        self.start_api()

    def settings(self) -> dict[str, str]:
        return super().settings() | {"ORCHESTRATOR_COMMANDS_DIR": str(self.folder / "commands")}

    @contextmanager
    def worker(self, *, forked: bool = True) -> Iterator[OrchestratorProcess]:
        """Run it until the test's end; then it, or who came after it, stops in order."""
        first = self.run("worker-1", "worker") if forked else self.run_unforked("worker-1", "worker")
        first.await_output(re.compile("worker.started"))
        try:
            yield first
            last = self.processes["worker-1"]
            last.signal(signal.SIGTERM)
            assert last.wait(STOPS_WITHIN_S) == 0, last.tail()
        finally:
            for process in (first, self.processes["worker-1"]):
                if process.alive:
                    process.kill()


@pytest.fixture(scope="module")
def one_worker(
    system_folder: Path,
    postgres_server: PostgresServer,
    postgres_template: str,
    shared_redis: RedisServer,
    forks: ForkServer,
) -> Iterator[_OneWorker]:
    url = postgres_server.url(postgres_server.create_database(postgres_template))
    folder = system_folder / "one_worker"
    folder.mkdir()
    broker = f"{shared_redis.url.rpartition('/')[0]}/3"
    with running(_OneWorker(folder, database_url=url, broker_url=broker, forks=forks)) as deployment:
        yield deployment


def test_the_worker_is_killed_and_its_parent_sees_it(tmp_path: Path, one_worker: _OneWorker) -> None:
    with one_worker.worker(forked=False) as parent:
        begun = begin(one_worker, tmp_path, *KINDS)
        child_of(parent).kill()
        for one in begun:
            history = await_the_next(one_worker, one, within_s=8)
            assert reasons(history) == ["worker_died"], one
            first, second = history.starts
            assert first.worker != second.worker
        assert parent.alive


def test_parent_and_worker_are_killed_and_the_next_parent_ends_the_command(
    tmp_path: Path, one_worker: _OneWorker
) -> None:
    with one_worker.worker() as parent:
        (begun,) = begin(one_worker, tmp_path, "plain", lease="2s")
        child = child_of(parent)
        parent.signal(signal.SIGSTOP)
        child.kill()
        parent.kill()
        one_worker.run("worker-1", "worker")
        history = await_the_next(one_worker, begun, within_s=12)
        assert reasons(history) == ["lease_expired"]  # nobody may say that it died


def test_the_parent_is_killed_and_its_worker_stops(tmp_path: Path, one_worker: _OneWorker) -> None:
    with one_worker.worker() as parent:
        (begun,) = begin(one_worker, tmp_path, "plain")
        child = child_of(parent)
        parent.signal(signal.SIGKILL)
        parent.wait(10)
        one_worker.run("worker-1", "worker")
        wait_until(lambda: not child.is_running(), what="the worker without a parent has stopped", timeout_s=20)
        history = await_the_next(one_worker, begun, within_s=20)
        assert reasons(history) == ["shutdown"]


def test_a_worker_that_is_frozen_is_not_called_dead(one_worker: _OneWorker) -> None:
    with one_worker.worker() as parent:
        child = child_of(parent)
        child.suspend()
        workspace = one_worker.register()
        one_worker.write(workspace, "a")
        child.resume()
        one_worker.settled(workspace, restarts=1)
        assert "worker.died" not in parent.output
