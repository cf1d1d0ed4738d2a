"""The code of revision 0002 serves under load while its database is taken to today's revision, back, and up again.

It does not look at the revision once it runs, so what it cannot read must fail: an error, never a wrong answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest

from orchestrator.bootstrap import build_drainer, open_services
from orchestrator.domain.events import FileWritten
from orchestrator.ports.store import EventFilter
from orchestrator.service.tick import look
from orchestrator.settings import load_settings
from orchestrator.storage import migrate
from orchestrator.storage.opening import open_store
from tests.api.conftest import NoDoorbell
from tests.previous_version import OF_0002, NoHistory, check_out
from tests.servers.postgres import PostgresServer
from tests.servers.process import LOOPBACK, free_port
from tests.storage.test_migrations_with_data import check_everything
from tests.waiting import wait_until

WORKSPACES = 12
WRITERS = 3
UNSERVED = {500, 503}
"""What it may answer where it cannot read a row: that it does not know it, in whatever words."""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'loaded.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


class Writers:
    """Clients that write one after the other, and keep what was acknowledged."""

    def __init__(self, base: str) -> None:
        self.base, self.stop = base, Event()
        self.acknowledged: list[str] = []
        self.refused: list[int] = []
        self._threads = [Thread(target=self._write, args=(number,)) for number in range(WRITERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)

    def _write(self, number: int) -> None:
        with httpx2.Client(base_url=self.base, timeout=30) as http:
            sent = 0
            while not self.stop.is_set():
                sent += 1
                workspace = f"ws-{(sent * WRITERS + number) % WORKSPACES}"
                answer = http.post(f"/v1/workspaces/{workspace}/writes", json={"path": f"{number}/{sent}.py"})
                if answer.status_code == 202:
                    self.acknowledged.append(answer.json()["id"])
                else:
                    self.refused.append(answer.status_code)


@contextmanager
def api_of_0002(code: Path, url: str, log: Path) -> Iterator[str]:
    """Run that version's API on the database."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    environment |= {
        "PYTHONPATH": str(code),
        "ORCHESTRATOR_DATABASE_URL": url,
        "ORCHESTRATOR_BROKER_URL": "redis://127.0.0.1:1/0",
        "ORCHESTRATOR_BIND": f"{LOOPBACK}:{port}",
        "ORCHESTRATOR_AUTO_REGISTER": "simulated",
        "ORCHESTRATOR_POLICY_QUIET": "0s",
        "ORCHESTRATOR_POLICY_MIN_INTERVAL": "0s",
    }
    command = [sys.executable, "-m", "orchestrator"]
    migrated = subprocess.run([*command, "migrate"], cwd=code, env=environment, capture_output=True, check=False)
    assert migrated.returncode == 0, migrated.stderr.decode()
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "api"], cwd=code, env=environment, stdout=file, stderr=file)
    try:
        base = f"http://{LOOPBACK}:{port}"
        wait_until(lambda: _answers(base), what="the version before serves", timeout_s=30)
        yield base
    finally:
        process.terminate()
        process.wait(20)


def _answers(base: str) -> bool:
    try:
        return httpx2.get(f"{base}/livez", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


def drain(url: str, *, all_of_it: bool) -> None:
    """Restart what is due, with today's code: all that waits, or a few cycles."""
    services = open_services(load_settings({}, database_url=url))
    drainer, store = build_drainer(services), services.store

    def pending() -> int:
        look(store, NoDoorbell(), services.ids, free_slots=lambda: 1)
        drainer.drain()
        with store.read() as reader:
            return reader.backlog().pending_writes

    if all_of_it:
        wait_until(lambda: pending() == 0, what="everything is covered", timeout_s=60)
    else:
        pending()
    store.close()


def stored_writes(url: str) -> set[str]:
    store = open_store(url)
    with store.read() as reader:
        found, after = set[str](), 0
        while page := reader.events(EventFilter(after=after, limit=1_000)):
            found |= {event.id for event in page if isinstance(event.data, FileWritten)}
            after = page[-1].position
    store.close()
    return found


def more(writers: Writers, kept: Callable[[], int], count: int, what: str) -> None:
    begun = kept()
    wait_until(lambda: kept() >= begun + count, what=what, timeout_s=60)


def test_up_and_back_again_under_its_load_nothing_that_it_acknowledged_is_lost(
    url: str, tmp_path: Path, not_run: Callable[[str], None]
) -> None:
    try:
        code = check_out(OF_0002, tmp_path / "of-0002")
    except NoHistory as reason:
        not_run(f"the code of revision 0002 under load: {reason}")
        return
    with api_of_0002(code, url, tmp_path / "api.log") as base:
        writers = Writers(base)
        writers.start()
        try:
            more(writers, lambda: len(writers.acknowledged), 40, "writes are stored before the migration")
            migrate.upgrade(url)
            drain(url, all_of_it=False)
            more(writers, lambda: len(writers.refused), 5, "rows of the new shape are refused")
            migrate.downgrade(url, "0002")
            more(writers, lambda: len(writers.acknowledged), 40, "it serves again what it can read again")
            migrate.upgrade(url)
        finally:
            writers.end()
    assert set(writers.refused) <= UNSERVED
    drain(url, all_of_it=True)
    assert set(writers.acknowledged) <= stored_writes(url)
    check_everything(url, tmp_path)
