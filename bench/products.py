"""The product as it is run, of any build: its processes, its log, and which processes' CPU it costs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from signal import SIGTERM

from bench.builds import Build
from bench.machine import ROOT
from tests.servers.postgres import PostgresServer
from tests.system.processes import OrchestratorProcess

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
_FOREIGN = ("ORCHESTRATOR_", "PG", "CELERY", "PYTHON")
_STOPS_WITHIN_S = 20.0
_BARE_LISTENS = re.compile(r"running on (http://\S+)")

NOTHING_DUE = {
    "ORCHESTRATOR_POLICY_QUIET": "1h",
    "ORCHESTRATOR_POLICY_MAX_WAIT": "2h",
    "ORCHESTRATOR_POLICY_MAX_COUNT": "1000000000",
}
"""For runs that look at writes alone: every window stays open."""


@dataclass
class Product:
    """Running processes of one build on one database. ``servers`` are the ids of its database's and broker's.

    ``program``: what is run instead of the build's own command.
    """

    build: Build
    store: str
    database_url: str
    folder: Path
    settings: Mapping[str, str]
    servers: tuple[int, ...] = ()
    program: Sequence[str] = ()
    urls: list[str] = field(default_factory=list)
    processes: dict[str, OrchestratorProcess] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return where the API is, or that of the process that was started last."""
        return self.urls[-1]

    @property
    def pids(self) -> list[int]:
        """Return the product's own processes and its servers."""
        return [*(process.pid for process in self.processes.values() if process.alive), *self.servers]

    def run(self, name: str, *args: str, **more: str) -> OrchestratorProcess:
        """Start one of its processes; ``more`` are settings of this one alone."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        process = OrchestratorProcess(
            name,
            args,
            env={**environment, "ORCHESTRATOR_LOG_FORMAT": "json", **self.settings, **more},
            log=self.folder / f"{name}.log",
            cwd=self.folder,
            program=self.program or [str(self.build.orchestrator)],
        )
        self.processes[name] = process
        return process

    def serve(self, name: str, *args: str, **more: str) -> None:
        """Start a process that serves the API, and wait until it does."""
        self.urls.append(self.run(name, *args, **more).url())

    def stop(self, *names: str) -> None:
        """End these processes, or all, in order."""
        chosen = names or tuple(self.processes)
        for name in chosen:
            if self.processes[name].alive:
                self.processes[name].signal(SIGTERM)
        for name in chosen:
            self.processes[name].wait(_STOPS_WITHIN_S)
            del self.processes[name]  # only now: one that does not end is killed with the others

    def kill(self) -> None:
        """End everything at once."""
        for process in self.processes.values():
            if process.alive:
                process.kill()

    def migrate(self) -> None:
        """Make the schema."""
        process = self.run("migrate", "migrate")
        if process.wait(60) != 0:
            raise AssertionError(process.tail())
        del self.processes["migrate"]


@contextmanager
def on_sqlite(build: Build, folder: Path, settings: Mapping[str, str]) -> Iterator[Product]:
    """Yield a product whose log is a SQLite file, with nothing started yet: ``up(product)`` is next."""
    own = _own_folder(folder, f"sqlite-{build.name}")
    data = own / "data"
    product = Product(
        build=build,
        store=SQLITE,
        database_url=f"sqlite:///{data / 'orchestrator.db'}",
        folder=own,
        settings={"ORCHESTRATOR_DATA": str(data), **settings},
    )
    with _ended(product):
        yield product


@contextmanager
def on_postgres(
    build: Build, folder: Path, settings: Mapping[str, str], server: PostgresServer, *, broker: tuple[str, int]
) -> Iterator[Product]:
    """Yield a product on a database of its own, migrated, with nothing started yet. ``broker``: its URL and process."""
    broker_url, broker_pid = broker
    product = Product(
        build=build,
        store=POSTGRES,
        database_url=server.url(server.create_database()),
        folder=_own_folder(folder, f"postgres-{build.name}"),
        settings={
            "ORCHESTRATOR_BROKER_URL": broker_url,
            "ORCHESTRATOR_BIND": "127.0.0.1:0",
            "ORCHESTRATOR_AUTO_REGISTER": "simulated",
            **settings,
        },
        servers=(server.pid, broker_pid),
    )
    product.settings = {**product.settings, "ORCHESTRATOR_DATABASE_URL": product.database_url}
    with _ended(product):
        product.migrate()
        yield product


def up(product: Product) -> None:
    """Start the embedded product."""
    product.serve("up", "up", "--port", "0")


def bare_server(stack: ExitStack, folder: Path) -> tuple[str, int]:
    """Start the bare ASGI app that nothing can be faster than; return its URL and process."""
    program = [sys.executable, "-m", "uvicorn"]
    args = ["bench.bare_app:app", "--host", "127.0.0.1", "--port", "0", "--no-access-log"]
    best = ["--loop", "uvloop", "--http", "httptools"]
    process = OrchestratorProcess(
        "ceiling", [*args, *best], env=dict(os.environ), log=folder / "ceiling.log", cwd=ROOT, program=program
    )
    stack.callback(process.kill)
    return process.await_output(_BARE_LISTENS), process.pid


def _own_folder(folder: Path, name: str) -> Path:
    """Return a new folder of that name, or of one like it: a product of the same build may have been here before."""
    found = next(path for number in count(1) if not (path := folder / f"{name}-{number}").exists())
    found.mkdir()
    return found


@contextmanager
def _ended(product: Product) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note("\n".join(process.tail() for process in product.processes.values()))
        raise
    finally:
        product.kill()
