"""The embedded product as a real process, to be attacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import pytest

from tests.system.deployment import Embedded
from tests.system.fork_server import ForkServer


@pytest.fixture(scope="module")
def attacked(forks: ForkServer) -> Iterator[Embedded]:
    """``orchestrator up`` with a workspace ``ws`` in it."""
    with TemporaryDirectory(prefix="test-fuzz-") as folder:
        deployment = Embedded(Path(folder), forks=forks)
        try:
            deployment.start()
            deployment.change("ws")
            yield deployment
            deployment.stop()
        finally:
            deployment.abort()


@pytest.fixture
def http(attacked: Embedded) -> httpx2.Client:
    """A client of it."""
    return attacked.client.http
