"""One deployment for the short lane: starting it costs seconds, and every test heals it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.production import ChaosProduction, own_servers
from tests.chaos.small_disk import NoSmallDisk, small_disk
from tests.system.conftest import pytest_runtest_makereport
from tests.system.deployment import running
from tests.system.fork_server import ForkServer

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def chaos(forks: ForkServer) -> Iterator[ChaosProduction]:
    """The processes of production behind proxies."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="test-chaos-")))
        folder.chmod(0o755)  # the database on the small disk runs as another user than root
        try:
            disk = stack.enter_context(small_disk(folder / "disk"))
        except NoSmallDisk:
            disk = None  # the test that needs it says so
        servers = stack.enter_context(own_servers(disk))
        yield stack.enter_context(running(ChaosProduction(folder, servers, forks=forks)))


@pytest.fixture
def production(chaos: ChaosProduction) -> Iterator[ChaosProduction]:
    """The shared deployment, whole again after each test."""
    yield chaos
    chaos.heal()
