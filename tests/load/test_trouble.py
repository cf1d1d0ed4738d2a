"""Bad input and broken servers at full load: what was acknowledged is there, once, and nobody else's request failed.

Sixteen clients write without a rest; whoever is told to come again does, under the same id. In `./dev thorough
tests/load` each trouble lasts many times as long.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from orchestrator.cli.http_server import allow_many_connections
from tests.chaos.production import ChaosProduction, own_servers
from tests.chaos.small_disk import NoSmallDisk, SmallDisk, small_disk
from tests.load.judged import check_promises, check_stored_once
from tests.load.patient_writers import PatientWriters
from tests.system.deployment import Deployment, Embedded, running
from tests.system.fork_server import ForkServer
from tests.thorough import examples
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("load")

_WRITES = 10_000
_WORKSPACES = 20
_IDLE, _HALF_SENT = 1_000, 50
_HALF = (
    b'POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n[{"a'
)
_SETTLES_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk | None]:
    """A disk that can be filled, where this user may mount one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="test-load-")))
        folder.chmod(0o755)  # the database on it runs as another user than root
        try:
            yield stack.enter_context(small_disk(folder / "disk"))
        except NoSmallDisk:
            yield None


@pytest.fixture(scope="module", params=["embedded", "production"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, disk: SmallDisk | None, forks: ForkServer
) -> Iterator[Deployment]:
    """Either shape of the product, its files on the small disk if there is one."""
    folder: Path = tmp_path_factory.mktemp(str(request.param))
    if request.param == "embedded":
        on_disk = folder if disk is None else disk.folder
        with running(Embedded(on_disk, forks=forks)) as up:
            yield up
        return
    with own_servers(disk) as servers, running(ChaosProduction(folder, servers, forks=forks)) as production:
        yield production


def test_poison_among_ten_thousand_writes_is_refused_alone(deployment: Deployment) -> None:
    """Broken, of a kind that there is not, and with an id under which something else is stored."""
    workspaces = _workspaces(deployment)
    deployment.client.write(workspaces[0], "a", id="taken", source="poison")
    batch: list[dict[str, Any]] = [
        {"workspace": workspaces[number % _WORKSPACES], "path": f"src/{number}.py", "id": f"good-{number}"}
        for number in range(_WRITES)
    ]
    batch[1_000] = {"workspace": workspaces[0], "path": ""}
    batch[5_000] = {"workspace": workspaces[0], "path": "b", "op": "eaten"}
    batch[9_000] = {"workspace": workspaces[1], "path": "something else", "id": "taken", "source": "poison"}
    with PatientWriters("beside-poison").at_work(deployment.url, workspaces) as beside:
        for number in range(examples(1)):
            writes = [{"source": f"batch-{number}", **one} for one in batch]
            answer = deployment.client.http.post("/v1/writes", json=writes, timeout=60)
            assert answer.status_code == 202, answer.text[:400]
            found = answer.json()
            assert found["accepted"] == _WRITES - 3
            assert [item["index"] for item in found["rejected"]] == [1_000, 5_000, 9_000]

    assert (beside.refused, beside.lost) == (0, 0)
    check_stored_once(deployment, beside)
    _settled(deployment, workspaces)
    check_promises(deployment, timely=False)  # ten thousand at a time keep a slower machine from its ticks


def test_a_thousand_silent_connections_and_bodies_that_never_end_cost_nobody_anything(deployment: Deployment) -> None:
    workspaces, where = _workspaces(deployment), urlsplit(deployment.url)
    allow_many_connections()
    with ExitStack() as silent, PatientWriters("beside-silence").at_work(deployment.url, workspaces) as writers:
        for number in range(_IDLE + _HALF_SENT):
            connected = socket.create_connection((where.hostname or "", where.port or 0), timeout=10)
            silent.enter_context(connected)
            if number >= _IDLE:
                connected.sendall(_HALF)
        _await_more(writers, examples(200))

    assert (writers.refused, writers.lost) == (0, 0)
    check_stored_once(deployment, writers)


@pytest.mark.parametrize("deployment", ["production"], indirect=True)
def test_a_database_that_goes_away_in_mid_load_and_comes_back(deployment: ChaosProduction) -> None:
    workspaces = _workspaces(deployment)
    with PatientWriters("beside-absence").at_work(deployment.url, workspaces) as writers:
        for _ in range(examples(1)):
            _await_more(writers, 50)
            refused = writers.refused
            deployment.servers.postgres.stop_immediately()
            wait_until(lambda: writers.refused > refused, what="a write is refused")  # noqa: B023 (called here)
            assert deployment.client.http.get("/livez").status_code == 200
            deployment.servers.postgres.start()
        _await_more(writers, 50)

    check_stored_once(deployment, writers)
    _settled(deployment, workspaces)
    check_promises(deployment, timely=False)


def test_a_disk_that_fills_in_mid_load(
    deployment: Deployment, disk: SmallDisk | None, not_run: Callable[[str], None]
) -> None:
    if disk is None:
        not_run("a disk that fills at full load: this user may mount no tmpfs")
        return
    workspaces = _workspaces(deployment)
    with PatientWriters("beside-full-disk").at_work(deployment.url, workspaces) as writers:
        for _ in range(examples(1)):
            _await_more(writers, 50)
            _fill(deployment, disk, writers)
            assert deployment.client.http.get("/livez").status_code == 200
            disk.free()
            if isinstance(deployment, ChaosProduction):
                deployment.heal()  # a PostgreSQL without room for its log ends, and its operator starts it
        _await_more(writers, 50)

    check_stored_once(deployment, writers)
    _settled(deployment, workspaces)
    check_promises(deployment, timely=False)


def _workspaces(deployment: Deployment) -> list[str]:
    return [deployment.register() for _ in range(_WORKSPACES)]


def _await_more(writers: PatientWriters, count: int) -> None:
    before = len(writers.acknowledged)
    wait_until(
        lambda: len(writers.acknowledged) >= before + count or writers.failed,
        what=f"{count} more writes are acknowledged",
        timeout_s=60,
    )


def _fill(deployment: Deployment, disk: SmallDisk, writers: PatientWriters) -> None:
    """Fill it until writes are refused: the log has room left in what it has allocated, and batches use that up."""
    before, workspace = writers.refused, deployment.register()
    batch = [{"workspace": workspace, "path": f"{number}/{'x' * 500}"} for number in range(200)]

    def is_refused() -> bool:
        disk.fill()
        try:
            deployment.client.http.post("/v1/writes", json=batch)
        except httpx2.TransportError:
            pass  # the proxy has cut it: whether it was stored is nobody's question here
        return writers.refused > before

    wait_until(is_refused, what="writes are refused", timeout_s=60)


def _settled(deployment: Deployment, workspaces: list[str]) -> None:
    def at_rest() -> bool:
        states = [deployment.state(workspace) for workspace in workspaces]
        return not any(state.pending or state.restart for state in states)

    wait_until(at_rest, what="everything is covered", timeout_s=_SETTLES_WITHIN_S, every_s=0.2)
