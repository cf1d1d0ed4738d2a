"""A log that nobody reads any more (a stopped terminal, a full pipe) stops nothing: writes, ticks, restarts, an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.owner_key import make_owner_key, read_owner_key
from orchestrator.sealing.keys import make_key_file
from orchestrator.storage.opening import open_store
from tests.servers.postgres import APP_ROLE, READER, READER_ROLE, PostgresServer, as_login
from tests.servers.redis import RedisServer
from tests.system.client import Client
from tests.system.deployment import STOPS_WITHIN_S, Deployment, Embedded, Production, running
from tests.system.processes import ORCHESTRATOR
from tests.waiting import wait_until


class Stalled:
    """A process of the product whose output is a pipe that nobody reads."""

    def __init__(self, deployment: Deployment, *args: str, is_full: bool) -> None:
        self.reader, self.writer = os.pipe()
        if is_full:
            self.fill()
        self.process = subprocess.Popen(
            [ORCHESTRATOR, *args],
            env=deployment.environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.writer,
            stderr=self.writer,
            start_new_session=True,
        )

    def line(self) -> str:
        """Read one line, and nothing behind it."""
        found = b""
        while not found.endswith(b"\n"):
            byte = os.read(self.reader, 1)
            assert byte, f"it ended: {found!r}"
            found += byte
        return found.decode()

    def fill(self) -> None:
        """Leave no room for even one more line."""
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b" ")
        except BlockingIOError:
            return
        finally:
            os.set_blocking(self.writer, True)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for end in (self.reader, self.writer):
            os.close(end)


@contextmanager
def stalled(deployment: Deployment, *args: str, is_full: bool = True) -> Iterator[Stalled]:
    process = Stalled(deployment, *args, is_full=is_full)
    try:
        yield process
    finally:
        process.end()


def covered(client: Client, workspace: str, path: str) -> str:
    """Write, and wait until a restart covers it: a tick has looked, a worker has carried it out."""
    write = client.write(workspace, path)["id"]
    answer = client.http.get(f"/v1/writes/{write}", params={"wait": 20}, timeout=40)
    status: str = answer.json()["status"]
    return status


@pytest.mark.parametrize("is_read_again", [True, False])
def test_up_goes_on_and_ends_in_order(tmp_path: Path, is_read_again: bool) -> None:
    deployment = Embedded(tmp_path)
    with stalled(deployment, "up", "--data", str(deployment.data), "--port", "0", is_full=False) as up:
        while "http://" not in (line := up.line()):
            continue
        client = Client("http://" + line.partition("http://")[2].split()[0], read_owner_key(deployment.owner_key))
        client.register("ws", {"executor": "simulated"})
        assert covered(client, "ws", "first") == "covered"
        up.fill()
        for number in range(50):
            client.write("ws", f"f{number}")
        assert covered(client, "ws", "last") == "covered"
        assert client.get("/readyz")["status"] == "ready"
        client.close()
        up.process.send_signal(signal.SIGTERM)
        if is_read_again:
            os.close(up.writer)
            up.writer = os.open(os.devnull, os.O_WRONLY)
            with open(up.reader, closefd=False) as reader:
                said = [json.loads(line) for line in reader.read().splitlines() if line.strip().startswith("{")]
            assert [line["path"] for line in said if line["event"] == "write.folded"][-1] == "last"
            assert "log.lines_lost" not in [line["event"] for line in said]
            assert "process.stopping" in [line["event"] for line in said]
        assert up.process.wait(STOPS_WITHIN_S + 5) == 0


class StalledProduction(Production):
    """Its worker and its beat have logs that are full from the start."""

    def start(self) -> None:
        """Migrate, and serve the API."""
        self.store = open_store(as_login(self._database_url, READER))
        make_key_file(self.sealing / "seal.key", "tests.example.com")
        make_owner_key(self.owner_key)
        roles = ("--app-role", APP_ROLE, "--reader-role", READER_ROLE)
        migrate = self.run("migrate", "migrate", *roles, ORCHESTRATOR_DATABASE_URL=self._database_url)
        assert migrate.wait(30) == 0, migrate.tail()
        self.start_api()


def test_worker_and_beat_go_on_and_a_dead_worker_is_followed_by_another(
    tmp_path: Path, postgres_server: PostgresServer, postgres_template: str, redis_server: RedisServer
) -> None:
    """The worker's parent logs too: one that waited for its terminal would start no other child."""
    database_url = postgres_server.url(postgres_server.create_database(postgres_template))
    deployment = StalledProduction(tmp_path, database_url=database_url, broker_url=redis_server.url)
    with running(deployment), stalled(deployment, "worker") as worker, stalled(deployment, "beat") as beat:
        workspace = deployment.register()
        assert covered(deployment.client, workspace, "first") == "covered"
        parent = psutil.Process(worker.process.pid)
        (child,) = parent.children()
        child.kill()
        wait_until(
            lambda: [one for one in parent.children() if one.pid != child.pid],
            what="there is another child",
        )
        assert covered(deployment.client, workspace, "second") == "covered"
        deployment.settled(workspace, restarts=2)
        for process in (worker.process, beat.process):
            process.send_signal(signal.SIGTERM)
        assert [each.wait(STOPS_WITHIN_S + 5) for each in (worker.process, beat.process)] == [0, 0]
