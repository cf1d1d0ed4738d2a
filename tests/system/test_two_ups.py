"""Two ``up --watch`` on one PostgreSQL, as two people with one database: neither starts the other's program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.domain.state import Phase
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.storage.opening import open_store
from tests.servers.postgres import PostgresServer
from tests.system.fork_server import ForkServer
from tests.system.history import History, check_sound
from tests.system.processes import OrchestratorProcess
from tests.system.watching import WORKSPACE, Watching
from tests.waiting import wait_until

SHARED = "shared"


class Sharing(Watching):
    """On a database that is not its own. ``workspace``: the one that it names; none: that of its folder's name."""

    def __init__(self, folder: Path, database_url: str, workspace: str = "", *, forks: ForkServer) -> None:
        folder.mkdir()
        super().__init__(folder, forks=forks)
        self._database_url, self._named = database_url, workspace

    def settings(self) -> dict[str, str]:
        return {"ORCHESTRATOR_DATABASE_URL": self._database_url}

    def start(self) -> None:
        self.start_up()
        self.store = open_store(self._database_url)

    def start_up(self, *more: str) -> OrchestratorProcess:
        named = ("--workspace", self._named) if self._named else ()
        return super().start_up(*named, *more)

    @property
    def workspace(self) -> str:
        """The workspace of its folder."""
        with self.store.read() as reader:
            return next(
                found.state.workspace
                for found in reader.workspaces(WorkspaceFilter(label=("directory", str(self.watched))))
            )

    def at_rest(self, workspace: str, *, restarts: int) -> History:
        """Wait until so many restarts have come and nothing waits."""

        def rests() -> History | None:
            history = self.history(workspace)
            return None if self.state(workspace).pending or len(history.successes) < restarts else history

        history = wait_until(rests, what=f"{workspace} is at rest", timeout_s=20)
        check_sound(history)
        assert len(history.queued) == restarts
        return history

    def started_all(self, history: History) -> bool:
        """Say whether this ``up`` alone carried a workspace's restarts out."""
        pids = {start.worker.split(":")[1] for start in history.starts}
        return pids == {str(self.processes["up"].pid)}


@contextmanager
def both(folder: Path, url: str, workspace: str = "", *, forks: ForkServer) -> Iterator[tuple[Sharing, Sharing]]:
    """Run two of them; at their end both must stop in order and leave no program behind."""
    first, second = (Sharing(folder / name, url, workspace, forks=forks) for name in ("first", "second"))
    with ExitStack() as stack:
        for deployment in (first, second):
            stack.callback(deployment.abort)
            deployment.start()
        yield first, second
        for deployment in (first, second):
            deployment.stop()
        assert (first.living, second.living) == ([], [])


@pytest.fixture
def url(postgres_server: PostgresServer, postgres_template: str) -> str:
    return postgres_server.url(postgres_server.create_database(postgres_template))


def test_two_folders_of_one_name_are_two_workspaces_each_with_its_own_program(
    tmp_path: Path, url: str, forks: ForkServer
) -> None:
    with both(tmp_path, url, forks=forks) as (first, second):
        assert first.workspace == WORKSPACE
        assert second.workspace.startswith(f"{WORKSPACE}-")
        begun = first.await_server(), second.await_server()

        first.save("a.html", "b.html")
        history = first.at_rest(first.workspace, restarts=1)
        assert first.started_all(history)
        again = first.await_server(but=begun[0])
        assert (first.pids, second.pids) == ([begun[0], again], [begun[1]])

        second.save("a.html")
        assert second.started_all(second.at_rest(second.workspace, restarts=1))
        assert len(first.pids) == 2

        second.write(first.workspace, "by the other's API")
        assert first.started_all(first.at_rest(first.workspace, restarts=2))
        assert (len(first.pids), len(second.pids)) == (3, 2)


def test_of_two_with_one_workspace_only_the_one_that_came_last_restarts_its_program(
    tmp_path: Path, url: str, forks: ForkServer
) -> None:
    with both(tmp_path, url, SHARED, forks=forks) as (first, second):
        begun = first.await_server(), second.await_server()

        first.save("a.html")
        second.save("b.html")
        history = second.at_rest(SHARED, restarts=1)
        assert second.started_all(history)
        assert (first.pids, len(second.pids)) == ([begun[0]], 2)

        second.processes["up"].kill()
        first.save("c.html")
        wait_until(lambda: first.state(SHARED).phase is Phase.QUEUED, what="the window is folded")
        other = first.register()
        first.write(other, "a")
        first.settled(other, restarts=1)  # the first has a worker, and leaves this program alone
        assert (first.pids, len(first.history(SHARED).starts)) == ([begun[0]], 1)

        second.start_up()
        assert len(second.at_rest(SHARED, restarts=2).starts) == 2
        assert first.pids == [begun[0]]
