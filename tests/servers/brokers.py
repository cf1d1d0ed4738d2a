"""The brokers that the product runs on, and which of them this machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers.broker import BrokerServer
from tests.servers.programs import MissingServer, find_rabbitmq, find_redis
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

BROKERS = (RedisServer.name, RabbitServer.name)


@contextmanager
def new_broker(name: str) -> Iterator[BrokerServer]:
    """Yield a running broker of that name, and leave nothing of it behind. Raises ``MissingServer``."""
    with TemporaryDirectory(prefix=f"test-{name}-") as folder:
        if name == RabbitServer.name:
            server: BrokerServer = RabbitServer(find_rabbitmq(os.environ), Path(folder))
        else:
            server = RedisServer(find_redis(os.environ), Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
            server.leave()


def why_no_rabbitmq(environ: Mapping[str, str]) -> str | None:
    """Return why nothing can be tried on RabbitMQ here; None where it can. Redis is always there."""
    try:
        find_rabbitmq(environ)
    except MissingServer as missing:
        return str(missing)
    return None
