"""RabbitMQ, where it is installed: elsewhere nothing of this folder is collected, and the header of the run says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from kombu import pools

from tests.chaos.production import ChaosProduction, own_servers
from tests.servers.brokers import new_broker, why_no_rabbitmq
from tests.servers.rabbitmq import RabbitServer
from tests.system.conftest import pytest_runtest_makereport
from tests.system.deployment import running
from tests.system.fork_server import ForkServer

__all__ = ["pytest_runtest_makereport"]

collect_ignore_glob = [] if why_no_rabbitmq(os.environ) is None else ["test_*.py"]


@pytest.fixture(scope="session")
def shared_rabbit() -> Iterator[RabbitServer]:
    """One for all tests of a session: its start takes seconds."""
    with new_broker(RabbitServer.name) as server:
        assert isinstance(server, RabbitServer)
        yield server


@pytest.fixture
def rabbit(shared_rabbit: RabbitServer) -> Iterator[RabbitServer]:
    """A RabbitMQ with an empty queue, to stop, kill, freeze and flush; it runs again after each test."""
    pools.reset()  # kombu keeps connections by URL, over all apps of a process: some are of before a restart
    shared_rabbit.flush()
    yield shared_rabbit
    if shared_rabbit.running:
        shared_rabbit.resume()
    else:
        shared_rabbit.start()


@pytest.fixture(scope="session")
def shared_production(forks: ForkServer) -> Iterator[ChaosProduction]:
    """Api, beat and two workers on PostgreSQL and RabbitMQ, behind proxies."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="test-rabbitmq-")))
        servers = stack.enter_context(own_servers(broker=RabbitServer.name))
        yield stack.enter_context(running(ChaosProduction(folder, servers, forks=forks)))


@pytest.fixture
def production(shared_production: ChaosProduction) -> Iterator[ChaosProduction]:
    """The shared deployment, whole again after each test."""
    yield shared_production
    shared_production.heal()
