"""A real RabbitMQ of a test's own: own node, ports, cookie and folders, on loopback only."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
from kombu import Connection
from kombu.exceptions import ChannelError, ConnectionError, KombuError

from tests.servers.broker import BrokerServer
from tests.servers.process import LOOPBACK, free_port
from workers.app import QUEUE

_ANSWERS_WITHIN_S = 2.0


class RabbitServer(BrokerServer):
    """Its queue outlives a stop, its messages do not: the product sends them as transient ones."""

    name = "rabbitmq"
    stop_signal = signal.SIGTERM  # Erlang stops the node in order
    starts_within_s = 60.0  # measured: 6 s on two idle cores

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(folder)
        self.program = program
        self.epmd_port = free_port()
        self._dist_port = free_port()
        (folder / "plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        """As ``ORCHESTRATOR_BROKER_URL`` takes it; the user is ``guest``, whom RabbitMQ lets in from loopback."""
        return f"amqp://{LOOPBACK}:{self.port}//"

    def command(self) -> list[str]:
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            "disk_free_limit.absolute = 1MB\n"  # a test machine's disk may be small, and it would block publishers
        )
        return [str(self.program)]

    def environment(self) -> dict[str, str]:
        """Return this machine's variables without those of another node, and everything of this one's own."""
        others = ("RABBITMQ_", "ERL_", "HOME")
        own = {
            "HOME": self.folder,  # of the cookie
            "ERL_EPMD_PORT": self.epmd_port,
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"test-{self.epmd_port}@localhost",
            "RABBITMQ_DIST_PORT": self._dist_port,
            "RABBITMQ_CONF_ENV_FILE": self.folder / "none.conf",
            "RABBITMQ_CONFIG_FILE": self.folder / "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": self.folder / "none.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "plugins",
            "RABBITMQ_MNESIA_BASE": self.folder / "mnesia",
            "RABBITMQ_LOG_BASE": self.folder / "log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_GENERATED_CONFIG_DIR": self.folder / "generated",
            # With input allowed the script becomes Erlang instead of waiting for it as a child: a signal reaches it.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return kept | {name: str(value) for name, value in own.items()}

    def answers(self) -> bool:
        try:
            with self.connect():
                return True
        except (KombuError, ConnectionError, OSError):
            return False

    def connect(self) -> Connection:
        """Return an open connection; every wait on it ends soon."""
        options = {"read_timeout": _ANSWERS_WITHIN_S, "max_retries": 0}
        connection = Connection(self.url, connect_timeout=_ANSWERS_WITHIN_S, transport_options=options)
        connection.ensure_connection(max_retries=0)
        return connection

    def flush(self) -> None:
        """Empty the product's queue; before anybody declared it there is nothing to lose."""
        self._do("queue_purge")

    def delete_queue(self) -> None:
        """Delete the product's queue itself, under its consumers."""
        self._do("queue_delete")

    def waiting(self) -> int:
        """How many messages wait in the product's queue."""
        with self.connect() as connection:
            channel: Any = connection.default_channel  # its types are those of all transports, which know no queues
            return int(channel.queue_declare(QUEUE, passive=True).message_count)

    def port_mappers(self) -> list[psutil.Process]:
        """Return what this node's Erlang started beside it, and what outlives the node by design."""
        found = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "epmd"]
        return [process for process in found if self._is_ours(process)]

    def end_port_mapper(self) -> None:
        """End it; the next start would begin another one."""
        found = self.port_mappers()
        for process in found:
            process.kill()
        psutil.wait_procs(found, timeout=5)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("ERL_EPMD_PORT") == str(self.epmd_port)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            return False  # another user's, or gone

    def _do(self, method: str) -> None:
        with self.connect() as connection:
            try:
                with connection.channel() as channel:
                    getattr(channel, method)(QUEUE)
            except ChannelError:
                return  # 404: there is no such queue yet
