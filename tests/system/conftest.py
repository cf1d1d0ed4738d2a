"""The deployments that tests share: starting one costs seconds. Their logs are shown with every test that fails."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.servers.postgres import PostgresServer
from tests.servers.programs import find_redis
from tests.servers.redis import RedisServer
from tests.system.deployment import Deployment, Embedded, Production, running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of all processes' logs to the report of a test that failed."""
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Deployment):
                report.sections.append(("the processes' logs", value.tails()))
    return report


@pytest.fixture(scope="session")
def system_folder() -> Iterator[Path]:
    """A short path: pytest's own folders are too long to read in a log line."""
    with TemporaryDirectory(prefix="test-system-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_redis(system_folder: Path) -> Iterator[RedisServer]:
    """One Redis for the plain cases: never stop or flush it."""
    folder = system_folder / "redis"
    folder.mkdir()
    server = RedisServer(find_redis(os.environ), folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def embedded(system_folder: Path) -> Iterator[Deployment]:
    """One ``up`` for the plain cases: each test registers its own workspaces."""
    folder = system_folder / "embedded"
    folder.mkdir()
    with running(Embedded(folder)) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def production(
    system_folder: Path, postgres_server: PostgresServer, postgres_template: str, shared_redis: RedisServer
) -> Iterator[Deployment]:
    """One set of processes for the plain cases: each test registers its own workspaces."""
    folder = system_folder / "production"
    folder.mkdir()
    database_url = postgres_server.url(postgres_server.create_database(postgres_template))
    with running(Production(folder, database_url=database_url, broker_url=shared_redis.url)) as deployment:
        yield deployment


@pytest.fixture(params=["embedded", "production"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """The product in each of its two shapes."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Deployment)
    return found
