"""F27: ``up`` on a disk that is full: 503 until there is room again, and nothing that was acknowledged is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from tests.chaos.small_disk import NoSmallDisk, SmallDisk, small_disk
from tests.system.deployment import Embedded, running
from tests.system.fork_server import ForkServer
from tests.waiting import wait_until


def test_a_full_disk_is_503_and_takes_nothing_that_was_acknowledged(
    not_run: Callable[[str], None], forks: ForkServer
) -> None:
    with TemporaryDirectory(prefix="test-full-disk-") as folder:
        try:
            with small_disk(Path(folder) / "disk") as disk, running(Embedded(disk.folder, forks=forks)) as up:
                _fill_and_free(up, disk)
        except NoSmallDisk as reason:
            not_run(f"`up` on a full disk: {reason}")


def _fill_and_free(up: Embedded, disk: SmallDisk) -> None:
    workspace, pid = up.register(policy={"quiet": "500ms"}), up.processes["up"].pid
    accepted: list[httpx2.Response] = []
    refused: list[httpx2.Response] = []

    def write() -> httpx2.Response:
        """Send a batch: the log has room left in what it has allocated, and this uses that up."""
        paths = [f"{len(accepted)}/{number}/{'x' * 500}" for number in range(200)]
        return up.client.http.post("/v1/writes", json=[{"workspace": workspace, "path": path} for path in paths])

    def is_accepted() -> bool:
        response = write()
        (accepted if response.status_code == 202 else refused).append(response)
        return response.status_code == 202

    def is_refused() -> bool:
        disk.fill()
        return not is_accepted()

    wait_until(is_refused, what="writes are refused", timeout_s=60)
    assert up.client.http.get("/livez").status_code == 200
    disk.free()
    wait_until(is_accepted, what="writes are accepted again", timeout_s=20)
    wait_until(lambda: not up.state(workspace).pending, what="everything is covered", timeout_s=30)

    history = up.settled(workspace, restarts=len(up.history(workspace).queued))
    assert {response.status_code for response in refused} == {503}
    assert all(response.headers["retry-after"] for response in refused)
    assert {response.json()["type"].rpartition(":")[2] for response in refused} == {"storage-unavailable"}
    told = [result["id"] for response in accepted for result in response.json()["results"]]
    assert told == [event.id for event in history.writes], "what was refused is not stored, and nothing else is missing"
    assert history.pending == []
    assert (up.processes["up"].pid, up.processes["up"].alive) == (pid, True)
    with closing(sqlite3.connect(up.data / "orchestrator.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
