"""One deployment for the short lane: starting it costs seconds, and every test heals it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.production import ChaosProduction, own_servers
from tests.system.conftest import pytest_runtest_makereport
from tests.system.deployment import running
from tests.system.fork_server import ForkServer

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Where the processes come from."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def chaos(forks: ForkServer) -> Iterator[ChaosProduction]:
    """The processes of production behind proxies."""
    with TemporaryDirectory(prefix="test-chaos-") as name, own_servers(Path(name)) as servers:
        production = ChaosProduction(Path(name), servers, forks=forks)
        with running(production):
            yield production
