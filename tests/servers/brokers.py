"""The brokers that the product runs on, and which of them this machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=f"test-{name}-")))
        if name == RabbitServer.name:
            rabbit = RabbitServer(find_rabbitmq(os.environ), folder)
            stack.callback(rabbit.end_port_mapper)
            server: BrokerServer = rabbit
        else:
            server = RedisServer(find_redis(os.environ), folder)
        stack.callback(server.stop)
        server.start()
        yield server


def why_no_rabbitmq(environ: Mapping[str, str]) -> str | None:
    """Return why nothing can be tried on RabbitMQ here; None where it can. Redis is always there."""
    try:
        find_rabbitmq(environ)
    except MissingServer as missing:
        return str(missing)
    return None
