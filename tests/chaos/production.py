"""The processes of production behind proxies, with servers of their own: all may be broken here, and is healed."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shutil import copy
from tempfile import mkdtemp
from urllib.parse import urlsplit, urlunsplit

import httpx2

from orchestrator.crash_points import KILLED, VARIABLE
from orchestrator.errors import Unavailable
from orchestrator.storage.opening import open_store
from tests.chaos.proxy import Mode, Proxy, proxy_to
from tests.chaos.small_disk import SmallDisk
from tests.servers.broker import BrokerServer
from tests.servers.brokers import new_broker
from tests.servers.postgres import READER, PostgresServer, as_login, new_postgres
from tests.servers.process import LOOPBACK, free_port
from tests.servers.programs import find_postgres, runnable
from tests.servers.redis import RedisServer
from tests.system.deployment import Production
from tests.system.fork_server import ForkServer
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

ARGUMENTS = {"api": "api", "worker-1": "worker", "worker-2": "worker", "beat": "beat"}
"""The processes that a healthy deployment has, and the command of each."""


@dataclass(frozen=True)
class Servers:
    """A database and a broker of the deployment's own, and a proxy in front of each.

    ``disk`` is the database's, where it is a small one that may be filled.
    """

    postgres: PostgresServer
    broker: BrokerServer
    to_postgres: Proxy
    to_broker: Proxy
    disk: SmallDisk | None = None


@contextmanager
def own_servers(disk: SmallDisk | None = None, *, broker: str = RedisServer.name) -> Iterator[Servers]:
    """Run PostgreSQL (durable, as an operator has it; on ``disk`` if there is one) and a broker.

    Raises ``MissingServer`` where that broker is not installed.
    """
    with ExitStack() as stack:
        rings = stack.enter_context(new_broker(broker))
        programs = stack.enter_context(runnable(find_postgres(os.environ)))
        within, settings = (disk.folder, SmallDisk.SETTINGS) if disk else (None, ())
        postgres = stack.enter_context(new_postgres(programs, durable=True, within=within, settings=settings))
        to_postgres, to_broker = (stack.enter_context(proxy_to(server.port)) for server in (postgres, rings))
        yield Servers(postgres, rings, to_postgres, to_broker, disk)


class ChaosProduction(Production):
    """Api, beat and two workers that reach database and broker through proxies; clients reach the api through one too.

    ``kills`` counts ends by process and how: the name of a crash point, or a signal.
    """

    def __init__(self, folder: Path, servers: Servers, *, forks: ForkServer) -> None:
        self.servers = servers
        self._api_port = free_port()
        self._database = servers.postgres.create_database()
        through = [
            _through(servers.postgres.url(self._database), servers.to_postgres),
            _through(servers.broker.url, servers.to_broker),
        ]
        super().__init__(folder, database_url=through[0], broker_url=through[1], forks=forks)
        self.kills: Counter[tuple[str, str]] = Counter()
        self.freezes = 0
        """How often a worker stood still between its claim and its act for longer than its lease."""
        self._stack = ExitStack()
        self.to_api: Proxy

    def settings(self) -> dict[str, str]:
        return super().settings() | {"ORCHESTRATOR_BIND": f"{LOOPBACK}:{self._api_port}"}

    def start(self) -> None:
        """The tests' own look goes past the proxy: it sees what is stored, whatever is broken."""
        super().start()
        self.store.close()
        self.store = open_store(as_login(self.direct_url, READER))
        self.to_api = self._stack.enter_context(proxy_to(self._api_port))
        self._serve(f"http://{LOOPBACK}:{self.to_api.port}")

    def stop(self) -> None:
        super().stop()
        self._stack.close()

    @property
    def direct_url(self) -> str:
        """The database as its owner reaches it, past the proxy."""
        return self.servers.postgres.url(self._database)

    @property
    def proxies(self) -> dict[str, Proxy]:
        return {"api": self.to_api, "postgres": self.servers.to_postgres, "broker": self.servers.to_broker}

    # Ends and beginnings of processes

    def begin(self, name: str, crash_at: str = "") -> OrchestratorProcess:
        """Start a process that is not running; with ``crash_at`` it will end there."""
        assert not self.processes[name].alive, f"{name} runs already"
        return self.run(name, ARGUMENTS[name], **({VARIABLE: crash_at} if crash_at else {}))

    def end(self, name: str) -> None:
        """``kill -9``, whenever that is."""
        process = self.processes[name]
        if process.alive:
            process.kill()
            self.kills[name, "kill -9"] += 1

    def await_crash(self, name: str, crash_at: str, *, timeout_s: float = 20.0) -> None:
        """Wait until the process has come to its crash point, and note that."""
        process = self.processes[name]
        wait_until(lambda: process.crashed, what=f"{name} comes to {crash_at}", timeout_s=timeout_s, every_s=0.02)
        assert process.alive or process.exit_code == KILLED, f"{name} ended otherwise:\n{process.tail()}"
        self.kills[name, crash_at] += 1

    def begin_missing(self) -> None:
        """Start whatever has ended, as a supervisor does."""
        for name in ARGUMENTS:
            if not self.processes[name].alive:
                self.begin(name)

    def heal(self) -> None:
        """Undo whatever was done, and return when the API serves and a tick has ended."""
        for proxy in self.proxies.values():
            if proxy.mode is not Mode.PASS:
                proxy.mode = Mode.PASS
                proxy.cut()
        if self.servers.disk is not None:
            self.servers.disk.free()
        self._mend_servers()
        for process in self.processes.values():
            process.thaw()
        self.begin_missing()
        self.await_serving()

    def _mend_servers(self) -> None:
        for server in (self.servers.postgres, self.servers.broker):
            if server.running:
                server.resume()
            else:
                server.start()
        if self.servers.postgres.is_standby:
            self.servers.postgres.promote()

    def await_serving(self, *, timeout_s: float = 30.0) -> None:
        """Wait until the API stores and a tick ends."""
        healed_at: list[datetime] = []

        def serves() -> bool:
            try:
                with self.store.read() as reader:
                    healed_at.append(reader.clock())
                    ticked_at = reader.last_tick_at()
                return ticked_at is not None and ticked_at > healed_at[0] and self.ready()
            except Unavailable:
                self._mend_servers()  # it may have died of the fault only now
                return False

        wait_until(serves, what="api, beat and workers serve again", timeout_s=timeout_s, every_s=0.05)

    def ready(self) -> bool:
        """Say whether the API says that it can store."""
        try:
            return self.client.http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def keep_logs(self) -> Path:
        """Have every process say what its threads are at, and return a folder with all logs that outlives this one."""
        for process in self.processes.values():
            if process.alive:
                process.signal(signal.SIGUSR1)
        last_words = Path(mkdtemp(prefix="chaos-logs-"))
        wait_until(self._all_said, what="every process has said what it is at")
        for log in self.folder.glob("*.log"):
            copy(log, last_words)
        return last_words

    def _all_said(self) -> bool:
        alive = [process for process in self.processes.values() if process.alive]
        return all("Current thread" in process.tail() for process in alive)

    def round_of(self, count: int, chance: random.Random) -> list[str]:
        """Register fresh workspaces with targets drawn at random: quick, slow, failing at first, with odd policies."""
        made = []
        for _ in range(count):
            policy = chance.choice([None, None, {"quiet": "100ms"}, {"edge": "leading"}, {"max_count": 5}])
            delay = chance.choice(["0s", "0s", "50ms", "300ms"])
            made.append(self.register(delay=delay, policy=policy, fail_first=chance.choice([0, 0, 0, 1])))
        return made


def _through(url: str, proxy: Proxy) -> str:
    """Return the URL of the same thing behind a proxy."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=f"{user}{LOOPBACK}:{proxy.port}"))
