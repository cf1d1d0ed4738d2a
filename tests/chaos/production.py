"""The processes of production behind proxies, with servers of their own: all may be broken here, and is healed."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2

from orchestrator.crash_points import KILLED, VARIABLE
from orchestrator.errors import Unavailable
from tests.chaos.proxy import Mode, Proxy, proxy_to
from tests.servers.postgres import PostgresServer, new_postgres
from tests.servers.process import LOOPBACK, free_port
from tests.servers.programs import find_postgres, find_redis, runnable
from tests.servers.redis import RedisServer
from tests.system.deployment import Production
from tests.system.fork_server import ForkServer
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

ARGUMENTS = {"api": "api", "worker-1": "worker", "worker-2": "worker", "beat": "beat"}
"""The processes that a healthy deployment has, and the command of each."""


@dataclass(frozen=True)
class Servers:
    """A database and a broker of the deployment's own, and a proxy in front of each."""

    postgres: PostgresServer
    redis: RedisServer
    to_postgres: Proxy
    to_redis: Proxy


@contextmanager
def own_servers(folder: Path) -> Iterator[Servers]:
    """Run PostgreSQL (durable, as an operator has it) and Redis."""
    redis = RedisServer(find_redis(os.environ), folder)
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.stop)
        programs = stack.enter_context(runnable(find_postgres(os.environ)))
        postgres = stack.enter_context(new_postgres(programs, durable=True))
        to_postgres, to_redis = (stack.enter_context(proxy_to(server.port)) for server in (postgres, redis))
        yield Servers(postgres, redis, to_postgres, to_redis)


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
            _through(servers.redis.url, servers.to_redis),
        ]
        super().__init__(folder, database_url=through[0], broker_url=through[1], forks=forks)
        self.kills: Counter[tuple[str, str]] = Counter()
        self._stack = ExitStack()
        self.to_api: Proxy

    def settings(self) -> dict[str, str]:
        return super().settings() | {"ORCHESTRATOR_BIND": f"{LOOPBACK}:{self._api_port}"}

    def start(self) -> None:
        super().start()
        self.to_api = self._stack.enter_context(proxy_to(self._api_port))
        self._serve(f"http://{LOOPBACK}:{self.to_api.port}")

    def stop(self) -> None:
        super().stop()
        self._stack.close()

    @property
    def proxies(self) -> dict[str, Proxy]:
        return {"api": self.to_api, "postgres": self.servers.to_postgres, "redis": self.servers.to_redis}

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
        wait_until(lambda: not process.alive, what=f"{name} comes to {crash_at}", timeout_s=timeout_s, every_s=0.02)
        assert process.exit_code == KILLED, f"{name} ended otherwise:\n{process.tail()}"
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
        for server in (self.servers.postgres, self.servers.redis):
            if server.running:
                server.resume()
            else:
                server.start()
        for process in self.processes.values():
            process.thaw()
        self.begin_missing()
        self.await_serving()

    def await_serving(self, *, timeout_s: float = 30.0) -> None:
        """Wait until the API stores and a tick ends."""
        healed_at = self.now()

        def serves() -> bool:
            try:
                with self.store.read() as reader:
                    ticked_at = reader.last_tick_at()
                return ticked_at is not None and ticked_at > healed_at and self.ready()
            except Unavailable:
                return False

        wait_until(serves, what="api, beat and workers serve again", timeout_s=timeout_s, every_s=0.05)

    def ready(self) -> bool:
        """Say whether the API says that it can store."""
        try:
            return self.client.http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

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
