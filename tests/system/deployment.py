"""The product as it is run: embedded (``up``), or as separate processes on PostgreSQL and Redis."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from signal import SIGTERM
from typing import Any, TypeVar

from orchestrator.domain.events import CycleStarted
from orchestrator.domain.state import WorkspaceState
from orchestrator.owner_key import make_owner_key, read_owner_key
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.sealing.keys import make_key_file
from orchestrator.storage.opening import open_store
from tests.servers.postgres import APP, APP_ROLE, READER, READER_ROLE, as_login
from tests.system.acts import Act, acts_in
from tests.system.client import Answer, Client
from tests.system.fork_server import ForkServer
from tests.system.history import Cycle, History, check_sound
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

FLOOR = {
    "quiet": "200ms",
    "max_wait": "800ms",
    "min_interval": "800ms",
    "settle": "400ms",
    "lease": "1s",
    "retry_backoff": "100ms",
    "give_up_backoff": "1s",
}
"""The policy of these tests: the defaults' proportions, some seventy times faster."""

TICK_S = 0.2
LEASE_S = 1.0
STOPS_WITHIN_S = 15.0
"""CONTRACT section 6."""

_EVENTS_MOST = 100_000
DeploymentT = TypeVar("DeploymentT", bound="Deployment")


class Deployment(ABC):
    """Processes, the client of their API, and an independent look at their database.

    ``expected`` remembers how many restarts each test's workspace was seen to have, so that the end
    of the deployment can show that none came later.
    """

    def __init__(self, folder: Path, *, forks: ForkServer | None = None) -> None:
        """``forks`` starts the processes; None: each imports everything by itself, as in production."""
        self._forks = forks
        self.url = ""
        self.folder = folder
        self.ledger = folder / "ledger.ndjson"
        self.expected: dict[str, int] = {}
        self.processes: dict[str, OrchestratorProcess] = {}
        self._numbers: Iterator[int] = count(1)
        self._runs: Counter[str] = Counter()
        self.store: EventStore
        self.client: Client

    @abstractmethod
    def start(self) -> None:
        """Start everything, and return when it serves."""

    def _serve(self, url: str) -> None:
        if self.url:
            self.client.close()
        self.url, self.client = url, Client(url, read_owner_key(self.owner_key))

    @property
    @abstractmethod
    def owner_key(self) -> Path:
        """Return the file of the owner's key."""

    @property
    @abstractmethod
    def sealing(self) -> Path:
        """Return the folder with ``seal.key``, ``seal.pub`` and ``checkpoints``."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Return the environment variables that this layout adds."""

    def environment(self) -> dict[str, str]:
        policy = {f"ORCHESTRATOR_POLICY_{name.upper()}": value for name, value in FLOOR.items()}
        common = {"ORCHESTRATOR_TICK": f"{TICK_S * 1000:.0f}ms", "ORCHESTRATOR_LOG_FORMAT": "json"}
        return {**os.environ, **policy, **common, **self.settings()}

    def run(self, name: str, *args: str, **settings: str) -> OrchestratorProcess:
        """Start a process of the product; one of the same name before it is forgotten.

        ``settings`` are environment variables of this process alone.
        """
        return self._run(name, args, settings, self._forks)

    def run_unforked(self, name: str, *args: str) -> OrchestratorProcess:
        """Start one that imports everything by itself, as in production, also where the others are forked."""
        return self._run(name, args, {}, None)

    def _run(
        self, name: str, args: Sequence[str], settings: Mapping[str, str], forks: ForkServer | None
    ) -> OrchestratorProcess:
        self._runs[name] += 1
        log = self.folder / f"{name}-{self._runs[name]}.log"
        process = OrchestratorProcess(name, args, env={**self.environment(), **settings}, log=log, forks=forks)
        self.processes[name] = process
        return process

    def stop(self) -> None:
        """Stop everything in order; every process must end well within the time that it promises."""
        for process in self.processes.values():
            if process.alive:
                process.thaw()
                process.signal(SIGTERM)
        codes = {name: process.wait(STOPS_WITHIN_S) for name, process in self.processes.items()}
        self.client.close()
        self.store.close()
        assert set(codes.values()) <= {0, -9}, f"exit codes: {codes}\n{self.tails()}"

    def abort(self) -> None:
        """End everything at once."""
        for process in self.processes.values():
            if process.alive:
                process.kill()

    def tails(self) -> str:
        """What every process said last."""
        return "\n".join(process.tail() for process in self.processes.values())

    # What a test does

    def register(self, *, delay: str = "0s", policy: Answer | None = None, **script: Any) -> str:
        """Register a fresh simulated workspace and return its id."""
        workspace = f"ws-{next(self._numbers)}"
        self.change(workspace, delay=delay, policy=policy, **script)
        return workspace

    def change(self, workspace: str, *, delay: str = "0s", policy: Answer | None = None, **script: Any) -> None:
        """Register it, or change its registration."""
        target = {"delay": delay, "ledger": str(self.ledger), **script}
        self.client.register(workspace, {"executor": "simulated", "target": target, "policy": policy or {}})

    def write(self, workspace: str, *paths: str) -> list[Answer]:
        return self.client.write_all(workspace, paths)

    # What a test sees

    def now(self) -> datetime:
        """The database's clock."""
        with self.store.read() as reader:
            return reader.clock()

    def await_clock(self, at: datetime) -> None:
        """Wait until the database's clock has passed ``at``."""
        wait_until(lambda: self.now() > at, what=f"the database's clock passes {at}", every_s=0.02)

    def history(self, workspace: str) -> History:
        with self.store.read() as reader:
            return History(reader.events(EventFilter(workspace=workspace, limit=_EVENTS_MOST)))

    def state(self, workspace: str) -> WorkspaceState:
        with self.store.read() as reader:
            stored = reader.workspace(workspace)
        assert stored is not None, f"there is no workspace {workspace}"
        return stored.state

    def acts(self, workspace: str) -> list[Act]:
        return acts_in(self.ledger, workspace)

    def await_running(self, workspace: str, *, after: Cycle | None = None, timeout_s: float = 15.0) -> Cycle:
        """Wait until a cycle runs and has acted: one that started later than ``after``."""

        def running() -> Cycle | None:
            cycle = self.history(workspace).running
            if cycle is None or (after is not None and cycle.start.fence <= after.start.fence):
                return None
            return cycle if any(act.cycle == cycle.start.cycle for act in self.acts(workspace)) else None

        return wait_until(running, what=f"a cycle of {workspace} runs", timeout_s=timeout_s)

    def await_queued(self, workspace: str) -> None:
        """Wait until a restart of the workspace is queued."""
        wait_until(lambda: self.history(workspace).queued, what=f"{workspace} is queued")

    def settled(self, workspace: str, *, restarts: int, timeout_s: float = 20.0) -> History:
        """Wait until nothing of the workspace waits or runs; check its log and its ledger, and count its restarts.

        With nothing pending there is nothing that could lead to another restart. That none came is
        checked again at the deployment's end.
        """

        def at_rest() -> bool:
            state = self.state(workspace)
            return not state.pending and state.restart is None

        wait_until(at_rest, what=f"{workspace} is at rest", timeout_s=timeout_s, every_s=0.02)
        self.expected[workspace] = restarts
        return self.check(workspace)

    def check(self, workspace: str) -> History:
        """Assert the log's promises, and that the outside was acted on once for each cycle, in the same order."""
        history = self.history(workspace)
        check_sound(history)
        acts = [(act.cycle, act.fence) for act in self.acts(workspace)]
        assert acts == [(start.cycle, start.fence) for start in history.starts]
        assert len(history.queued) == self.expected[workspace], f"restarts of {workspace}: {history.queued}"
        return history

    def check_everything(self) -> None:
        """Check all workspaces that tests have settled, and the order of the whole log."""
        for workspace in self.expected:
            self.check(workspace)
        with self.store.read() as reader:
            events = reader.events(EventFilter(limit=_EVENTS_MOST))
            workspaces = reader.workspaces(WorkspaceFilter(limit=10_000, removed=True))
        instants = [event.recorded_at for event in events]
        assert instants == sorted(instants)
        started = sum(isinstance(event.data, CycleStarted) for event in events)
        assert started >= len(self.expected), "the log lost cycles"
        assert {item.state.workspace for item in workspaces} >= set(self.expected)


class Embedded(Deployment):
    """``orchestrator up``: one process, SQLite, ``memory://``."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def owner_key(self) -> Path:
        return self.data / "owner.key"

    @property
    def sealing(self) -> Path:
        return self.data

    def settings(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        self.start_up()
        self.store = open_store(f"sqlite:///{self.data / 'orchestrator.db'}")

    def start_up(self, *more: str) -> OrchestratorProcess:
        """Start ``up`` on this deployment's data folder and wait until it serves."""
        up = self.run("up", "up", "--data", str(self.data), "--port", "0", *more)
        self._serve(up.url())
        return up


class Production(Deployment):
    """``api``, ``beat`` and two ``worker`` processes on PostgreSQL and Redis, with the app's privileges and no more.

    The owner migrates; the tests' own look is that of a reader.
    """

    SLOTS = 2

    def __init__(self, folder: Path, *, database_url: str, broker_url: str, forks: ForkServer | None = None) -> None:
        super().__init__(folder, forks=forks)
        self._database_url, self._broker_url = database_url, broker_url

    def settings(self) -> dict[str, str]:
        return {
            "ORCHESTRATOR_DATABASE_URL": as_login(self._database_url, APP),
            "ORCHESTRATOR_BROKER_URL": self._broker_url,
            "ORCHESTRATOR_BIND": "127.0.0.1:0",
            "ORCHESTRATOR_SLOTS": str(self.SLOTS),
            "ORCHESTRATOR_OWNER_KEY": str(self.owner_key),
            "ORCHESTRATOR_SEAL_KEY": str(self.sealing / "seal.key"),
            "ORCHESTRATOR_CHECKPOINT_DIR": str(self.sealing / "checkpoints"),
        }

    @property
    def owner_key(self) -> Path:
        return self.folder / "owner.key"

    @property
    def sealing(self) -> Path:
        return self.folder

    def start(self) -> None:
        self.prepare()
        for name in ("worker-1", "worker-2"):
            self.run(name, "worker")
        self.run("beat", "beat")
        self.start_api()

    def prepare(self) -> None:
        """Make what must be there before any process is: tables, privileges, the key that seals."""
        self.store = open_store(as_login(self._database_url, READER))
        make_key_file(self.sealing / "seal.key", "tests.example.com")
        make_owner_key(self.owner_key)
        roles = ("--app-role", APP_ROLE, "--reader-role", READER_ROLE)
        migrate = self.run("migrate", "migrate", *roles, ORCHESTRATOR_DATABASE_URL=self._database_url)
        assert migrate.wait(30) == 0, migrate.tail()

    def start_api(self) -> None:
        """Start the API on a free port and wait until it serves."""
        self._serve(self.run("api", "api").url())


@contextmanager
def running(deployment: DeploymentT) -> Iterator[DeploymentT]:
    """Run a deployment; at its end it must stop in order, and its log must still be sound."""
    try:
        deployment.start()
        yield deployment
        deployment.check_everything()
        deployment.stop()
    except BaseException as error:
        error.add_note(deployment.tails())
        raise
    finally:
        deployment.abort()
