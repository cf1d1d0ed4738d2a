"""The databases and brokers of the tests: real ones, brought along, none that happens to run."""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from tests.files_in_memory import keep_files_in_memory
from tests.scheduling import SharedDeploymentScheduling
from tests.servers.brokers import why_no_rabbitmq
from tests.servers.postgres import APP, APP_ROLE, READER, READER_ROLE, PostgresServer, as_login, new_postgres
from tests.servers.programs import find_postgres, find_redis, runnable
from tests.servers.redis import RedisServer
from tests.system.fork_server import ForkServer
from tests.thorough import try_many_examples

NOT_RUN = "not run"
FOREIGN = ("ORCHESTRATOR_", "PG", "CELERY")

# Ignored under nohup and in a shell's background, and so they would be in all that tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
try_many_examples()
keep_files_in_memory()  # here and not in a fixture: pytest asks for its own folders before the first one


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Keep tests that share a deployment together where ``./dev test`` asks for groups."""
    return SharedDeploymentScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture
def not_run(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say, at the end of the whole run, what this machine does not allow a test to try."""

    def say(reason: str) -> None:
        request.node.user_properties.append((NOT_RUN, reason))

    return say


def pytest_report_header() -> list[str]:
    """Say it where a broker is missing: its tests are not collected, which would not show otherwise."""
    without = why_no_rabbitmq(os.environ)
    return [f"not run: tests/rabbitmq: {without}"] if without else ["RabbitMQ: found, tests/rabbitmq is run"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was not run, and why: it is never counted as good."""
    passed = terminalreporter.stats.get("passed", [])
    reasons = {str(value) for report in passed for name, value in report.user_properties if name == NOT_RUN}
    without = why_no_rabbitmq(os.environ)
    if without:
        reasons.add(f"tests/rabbitmq: {without}")
    for reason in sorted(reasons):
        terminalreporter.write_line(f"not run: {reason}")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the caller's settings out of the tests, and the tests out of the caller's data folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def forks(clean_environment: None) -> Iterator[ForkServer]:
    """Where the product's processes come from wherever their own imports are not what is tried."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrate_database() -> Callable[[str], None]:
    """Bring the empty database of a URL to the newest schema, by the real migrations."""
    upgrade: Callable[[str], None] = importlib.import_module("orchestrator.storage.migrate").upgrade
    return upgrade


@pytest.fixture(scope="session")
def postgres_programs() -> Iterator[Path]:
    """The folder of PostgreSQL's programs."""
    with runnable(find_postgres(os.environ)) as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: Path) -> Iterator[PostgresServer]:
    """One server for all tests of this process: never stop, kill or pause it; see ``private_postgres``."""
    with new_postgres(postgres_programs) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database that nobody is connected to, with its roles split as in production."""
    privileges = importlib.import_module("orchestrator.storage.privileges")
    name = postgres_server.create_database()
    roles = privileges.Roles(app=APP_ROLE, reader=READER_ROLE)
    importlib.import_module("orchestrator.storage.migrate").upgrade(postgres_server.url(name), roles)
    return name


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    name = postgres_server.create_database(postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def app_url(postgres_url: str) -> str:
    """``postgres_url`` as api, worker and beat connect in production: as a member of the app's role."""
    return as_login(postgres_url, APP)


@pytest.fixture
def reader_url(postgres_url: str) -> str:
    """``postgres_url`` as an auditor connects: as a member of the reader's role."""
    return as_login(postgres_url, READER)


@dataclass(frozen=True)
class PrivatePostgres:
    """A server to stop, kill and freeze, and the URL of the migrated database in it."""

    server: PostgresServer
    url: str


@pytest.fixture
def private_postgres(postgres_programs: Path, migrate_database: Callable[[str], None]) -> Iterator[PrivatePostgres]:
    """A durable PostgreSQL server of the test's own, with a migrated database."""
    with new_postgres(postgres_programs, durable=True) as server:
        url = server.url(server.create_database())
        migrate_database(url)
        yield PrivatePostgres(server, url)


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """An empty Redis server of the test's own, to stop, kill, freeze and flush."""
    server = RedisServer(find_redis(os.environ), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory, migrate_database: Callable[[str], None]) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    path = tmp_path / "orchestrator.db"
    with closing(sqlite3.connect(sqlite_template)) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
    return f"sqlite:///{path}"
