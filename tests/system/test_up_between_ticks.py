"""What is saved in the folder of ``up`` is folded when it is due, and waits for no tick."""

from __future__ import annotations

from pathlib import Path

from tests.system.deployment import running
from tests.system.fork_server import ForkServer
from tests.system.watching import Watching


class RareTicks(Watching):
    """A tick a minute: none comes while a test lasts, but for the first."""

    def settings(self) -> dict[str, str]:
        return {"ORCHESTRATOR_TICK": "60s", "ORCHESTRATOR_POLICY_LEASE": "10m"}


def test_a_save_restarts_the_program_though_no_tick_comes(tmp_path: Path, forks: ForkServer) -> None:
    with running(RareTicks(tmp_path, forks=forks)) as deployment:
        assert isinstance(deployment, RareTicks)
        before = deployment.await_server()
        for _ in range(2):
            deployment.save("a.py")
            before = deployment.await_server(but=before)
