"""Bad input and broken servers at full load: what was acknowledged is there, once, and nobody else's request failed.

Sixteen clients write without a rest; whoever is told to come again does, under the same id. In `./dev thorough
tests/load` each trouble lasts many times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest

from tests.chaos.production import ChaosProduction, own_servers
from tests.chaos.small_disk import NoSmallDisk, SmallDisk, small_disk
from tests.load.judged import check_promises, check_stored_once
from tests.load.patient_writers import PatientWriters
from tests.system.deployment import Deployment, Embedded, running
from tests.system.fork_server import ForkServer
from tests.thorough import examples
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("load")

_GOOD = 9_999
_WORKSPACES = 20
_POLICY = {"quiet": "1s", "max_wait": "5s"}
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


def test_a_poison_write_among_ten_thousand_good_ones_is_refused_alone(deployment: Deployment) -> None:
    workspaces = _workspaces(deployment)
    good: list[dict[str, Any]] = [
        {"workspace": workspaces[number % _WORKSPACES], "path": f"src/{number}.py", "id": f"good-{number}"}
        for number in range(_GOOD)
    ]
    taken = deployment.client.write(workspaces[0], "a", id="taken", source="poison")
    poisons = [
        {"workspace": workspaces[0], "path": ""},
        {"workspace": workspaces[0], "path": "b", "id": taken["id"], "op": "eaten"},
        {"workspace": workspaces[1], "path": "another body", "id": "taken", "source": "poison"},
        {"workspace": "nobody:registered:it", "path": "b"},
    ]
    with PatientWriters("beside-poison").at_work(deployment.url, workspaces) as beside:
        for number, poison in enumerate(poisons):
            batch = [{**one, "source": f"batch-{number}"} for one in good]
            batch.insert(_GOOD // 2, poison)
            answer = deployment.client.http.post("/v1/writes", json=batch, timeout=60)
            assert answer.status_code == 202, answer.text[:400]
            found = answer.json()
            assert (found["accepted"], [item["index"] for item in found["rejected"]]) == (_GOOD, [_GOOD // 2])

    assert (beside.refused, beside.lost) == (0, 0)
    check_stored_once(deployment, beside)
    _settled(deployment, workspaces)
    check_promises(deployment, timely=False)  # ten thousand at a time keep a slower machine from its ticks


def test_a_database_that_goes_away_in_mid_load_and_comes_back(deployment: Deployment) -> None:
    if not isinstance(deployment, ChaosProduction):
        pytest.skip("the embedded product's database is a file")
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
    return [deployment.register(policy=_POLICY) for _ in range(_WORKSPACES)]


def _await_more(writers: PatientWriters, count: int) -> None:
    before = len(writers.acknowledged)
    wait_until(
        lambda: len(writers.acknowledged) >= before + count or writers.failed,
        what=f"{count} more writes are acknowledged",
        timeout_s=60,
    )


def _fill(deployment: Deployment, disk: SmallDisk, writers: PatientWriters) -> None:
    """Fill it until writes are refused: the log has room left in what it has allocated, and batches use that up."""
    before = writers.refused
    batch = [
        {"workspace": deployment_workspace, "path": f"{number}/{'x' * 500}"}
        for deployment_workspace in [deployment.register(policy=_POLICY)]
        for number in range(200)
    ]

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
