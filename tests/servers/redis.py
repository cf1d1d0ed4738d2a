"""A real Redis (or Valkey) of a test's own."""

from __future__ import annotations

import signal
from pathlib import Path

import redis

from tests.servers.broker import BrokerServer
from tests.servers.process import LOOPBACK


class RedisServer(BrokerServer):
    """Nothing is kept on disk: a stop loses the queues, which the product has to bear."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(folder)
        self.program = program

    @property
    def url(self) -> str:
        """As ``ORCHESTRATOR_BROKER_URL`` takes it."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def command(self) -> list[str]:
        settings = {"port": self.port, "bind": LOOPBACK, "save": "", "appendonly": "no", "dir": self.folder}
        return [str(self.program), *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    def answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1, socket_connect_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def flush(self) -> None:
        """Empty it: every queued message is lost."""
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            client.flushall()
