"""A process that carries a restart out is killed in mid-command: what it left is ended, then the restart goes on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.domain import events as ev
from orchestrator.sealing.keys import make_key_file
from orchestrator.storage.opening import open_store
from tests.servers.postgres import APP_ROLE, READER, READER_ROLE, PostgresServer, as_login
from tests.servers.redis import RedisServer
from tests.system.deployment import Deployment, Embedded, Production
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


def begin(deployment: Deployment, tmp_path: Path, kind: str, *, lease: str = "20s") -> tuple[str, Path]:
    """Let a workspace's command be in the middle of its act."""
    acts, script = tmp_path / "acts", tmp_path / "act.py"
    script.write_text(ACT)
    workspace = f"ws-{kind}-{tmp_path.name[-12:]}"
    target = {"argv": [sys.executable, str(script), str(acts), kind], "grace": "500ms"}
    deployment.client.register(workspace, {"executor": "command", "target": target, "policy": {"lease": lease}})
    deployment.write(workspace, "a")
    wait_until(acts.exists, what="the command has begun")
    return workspace, acts


def await_the_next(deployment: Deployment, workspace: str, acts: Path, *, within_s: float) -> History:
    wait_until(
        lambda: any(line.split()[:2] == ["end", "2"] for line in acts.read_text().splitlines()),
        what="the next attempt has ended",
        timeout_s=within_s,
    )
    assert_one_at_a_time(acts)
    return deployment.history(workspace)


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


@pytest.mark.parametrize("kind", KINDS)
def test_up_is_killed(tmp_path: Path, kind: str) -> None:
    deployment = Embedded(tmp_path)
    try:
        deployment.start()
        workspace, acts = begin(deployment, tmp_path, kind)
        deployment.processes["up"].kill()
        deployment.start_up()
        history = await_the_next(deployment, workspace, acts, within_s=5)
        assert reasons(history) == ["worker_died"]
        deployment.stop()
    finally:
        deployment.abort()


@pytest.fixture
def one_worker(
    tmp_path: Path, postgres_server: PostgresServer, postgres_template: str, shared_redis: RedisServer
) -> Production:
    url = postgres_server.url(postgres_server.create_database(postgres_template))
    return _OneWorker(tmp_path, database_url=url, broker_url=f"{shared_redis.url.rpartition('/')[0]}/3")


class _OneWorker(Production):
    """With nobody else to go on, what goes on is what the parent started."""

    def start(self) -> None:
        self.store = open_store(as_login(self._database_url, READER))
        make_key_file(self.sealing / "seal.key", "tests.example.com")
        roles = ("--app-role", APP_ROLE, "--reader-role", READER_ROLE)
        migrate = self.run("migrate", "migrate", *roles, ORCHESTRATOR_DATABASE_URL=self._database_url)
        assert migrate.wait(30) == 0, migrate.tail()
        self.run("worker-1", "worker")
        self.run("beat", "beat")
        self.start_api()

    def settings(self) -> dict[str, str]:
        return super().settings() | {"ORCHESTRATOR_COMMANDS_DIR": str(self.folder / "commands")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_worker_is_killed_and_its_parent_sees_it(tmp_path: Path, one_worker: Production, kind: str) -> None:
    try:
        one_worker.start()
        workspace, acts = begin(one_worker, tmp_path, kind)
        child_of(one_worker.processes["worker-1"]).kill()
        history = await_the_next(one_worker, workspace, acts, within_s=8)
        assert reasons(history) == ["worker_died"]
        first, second = history.starts
        assert first.worker != second.worker
        assert one_worker.processes["worker-1"].alive
        one_worker.stop()
    finally:
        one_worker.abort()


def test_parent_and_worker_are_killed_and_the_next_parent_ends_the_command(
    tmp_path: Path, one_worker: Production
) -> None:
    try:
        one_worker.start()
        workspace, acts = begin(one_worker, tmp_path, "plain", lease="2s")
        child = child_of(one_worker.processes["worker-1"])
        one_worker.processes["worker-1"].signal(signal.SIGSTOP)
        child.kill()
        one_worker.processes["worker-1"].kill()
        one_worker.run("worker-1", "worker")
        history = await_the_next(one_worker, workspace, acts, within_s=12)
        assert reasons(history) == ["lease_expired"]  # nobody may say that it died
        one_worker.stop()
    finally:
        one_worker.abort()


def test_the_parent_is_killed_and_its_worker_stops(tmp_path: Path, one_worker: Production) -> None:
    try:
        one_worker.start()
        workspace, acts = begin(one_worker, tmp_path, "plain")
        child = child_of(one_worker.processes["worker-1"])
        parent = one_worker.processes["worker-1"]
        parent.signal(signal.SIGKILL)
        parent.wait(10)
        one_worker.run("worker-1", "worker")
        wait_until(lambda: not child.is_running(), what="the worker without a parent has stopped", timeout_s=20)
        history = await_the_next(one_worker, workspace, acts, within_s=20)
        assert reasons(history) == ["shutdown"]
        one_worker.stop()
    finally:
        one_worker.abort()


def test_a_worker_that_is_frozen_is_not_called_dead(tmp_path: Path, one_worker: Production) -> None:
    try:
        one_worker.start()
        child = child_of(one_worker.processes["worker-1"])
        child.suspend()
        workspace = one_worker.register()
        one_worker.write(workspace, "a")
        child.resume()
        one_worker.settled(workspace, restarts=1)
        assert "worker.died" not in one_worker.processes["worker-1"].output
        one_worker.stop()
    finally:
        one_worker.abort()
