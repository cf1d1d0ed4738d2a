"""Sealing as it is run: evidence from a running product, and a sealer that is killed."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import httpx2

from orchestrator.bootstrap import build_sealer
from orchestrator.ports.sealing import SealState
from orchestrator.ports.store import EventStore
from orchestrator.settings import load_settings
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import database_name
from tests.audit.sealing import write
from tests.audit.test_checkpoint_sinks import Auditor, listening
from tests.servers.process import LOOPBACK
from tests.system.deployment import Deployment, Embedded, running
from tests.system.fork_server import ForkServer
from tests.system.processes import ORCHESTRATOR, OrchestratorProcess
from tests.waiting import wait_until

SEALED_WITHIN_S = 30.0
"""Beat asks every 10 s; a busy machine takes longer."""


def test_evidence_of_a_restart_is_checked_offline_with_one_command(deployment: Deployment, tmp_path: Path) -> None:
    workspace = deployment.register()
    deployment.write(workspace, "app.py")
    restart = deployment.settled(workspace, restarts=1).queued[0].restart

    def evidence() -> bytes | None:
        answer = httpx2.get(f"{deployment.url}/v1/audit/evidence/{restart}", timeout=10, trust_env=False)
        assert answer.status_code in (200, 409), answer.text
        return answer.content if answer.status_code == 200 else None

    found = wait_until(evidence, what=f"{restart} is sealed", timeout_s=SEALED_WITHIN_S, every_s=0.1)
    bundle = tmp_path / "evidence.json"
    bundle.write_bytes(found)
    verify = [str(ORCHESTRATOR), "audit", "verify", str(bundle), "--pubkey", str(deployment.sealing / "seal.pub")]
    checked = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    wait_until(
        lambda: any((deployment.sealing / "checkpoints").glob("*.checkpoint")), what="a checkpoint leaves the database"
    )


def test_separate_processes_with_a_key_are_ready_and_each_names_its_database(production: Deployment) -> None:
    said = f'"database":"{database_name(production.settings()["ORCHESTRATOR_DATABASE_URL"])}"'

    def silent() -> list[str]:
        lasting = [process for process in production.processes.values() if process.name != "migrate"]
        return [process.name for process in lasting if said not in process.output]

    wait_until(lambda: not silent(), what=f"each process says {said}", timeout_s=SEALED_WITHIN_S)

    def status() -> str:
        return str(httpx2.get(f"{production.url}/readyz", timeout=10, trust_env=False).json()["status"])

    wait_until(lambda: status() == "ready", what="all is ready", timeout_s=SEALED_WITHIN_S)


def state_of(store: EventStore) -> SealState:
    with store.read() as reader:
        return reader.seals.state()


def test_a_sealer_that_is_killed_before_the_export_is_made_up_for(tmp_path: Path) -> None:
    """Its checkpoint is committed; the auditor's server, which took the connection and said nothing, gets it later."""
    url = f"sqlite:///{tmp_path / 'orchestrator.db'}"
    upgrade(url)
    with closing(open_store(url)) as store:
        write(store, 3)
        silent = socket.create_server((LOOPBACK, 0))
        address = f"http://{LOOPBACK}:{silent.getsockname()[1]}/checkpoints"
        subprocess.run(
            [*map(str, (ORCHESTRATOR, "keys", "seal", "new", tmp_path / "seal.key"))], check=True, timeout=30
        )
        sealer = sealing(tmp_path, address)
        wait_until(lambda: state_of(store).newest, what="the checkpoint is committed", timeout_s=20)
        sealer.kill()
        silent.close()
        killed = state_of(store)
        assert (killed.unsealed, killed.unexported) == (0, 1)
        with listening(Auditor()) as auditor:
            settings = load_settings({}, data=tmp_path, checkpoint_webhook=auditor.url).sealing_in_data_folder()
            again = build_sealer(store, settings)
            assert again is not None
            assert again.run().problems == []
        assert [body["size"] for body in auditor.received] == [3]
        assert state_of(store).unexported == 0


def sealing(data: Path, webhook: str) -> OrchestratorProcess:
    """Start a process that seals once."""
    args = ["audit", "checkpoint", "--seal", "--data", str(data)]
    env = {**os.environ, "ORCHESTRATOR_CHECKPOINT_WEBHOOK": webhook}
    return OrchestratorProcess("sealer", args, env=env, log=data / "sealer.log")


def test_a_stopped_up_leaves_nothing_unsealed(tmp_path: Path, forks: ForkServer) -> None:
    with running(Embedded(tmp_path, forks=forks)) as up:
        workspace = up.register()
        up.write(workspace, "app.py")
        up.settled(workspace, restarts=1)
    with closing(open_store(f"sqlite:///{up.sealing / 'orchestrator.db'}")) as store:
        state = state_of(store)
    assert (state.unsealed, state.unexported, state.failures) == (0, 0, 0)
    assert len(list((up.sealing / "checkpoints").glob("*.checkpoint"))) >= 1
