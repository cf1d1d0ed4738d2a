"""A thousand connections that say nothing cost a whole `up` no answer of anybody else's, and no flood in its log."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.system.deployment import Embedded, running
from tests.system.fork_server import ForkServer

_SILENT = 1_000
_LINES_MOST = 10
_OF_THE_WRITES = "write.recorded"
_ONLY_RECORDED = {"executor": "simulated", "target": {}, "policy": {"rules": [{"match": "*", "action": "record"}]}}


@pytest.fixture
def up(tmp_path: Path, forks: ForkServer) -> Iterator[Embedded]:
    with running(Embedded(tmp_path, forks=forks)) as deployment:
        yield deployment


@pytest.mark.parametrize("files_most", [None, 256])
def test_silent_connections_cost_nobody_an_answer_and_few_lines(up: Embedded, files_most: int | None) -> None:
    """Also where far fewer descriptors are there than connections come: those that never asked go first."""
    process = up.processes["up"]
    where = urlsplit(up.url)
    up.client.http.put("/v1/workspaces/recorded", json=_ONLY_RECORDED).raise_for_status()
    if files_most is not None:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files_most, files_most))
    lines = process.output.count("\n")
    stored = 0
    with ExitStack() as silent, httpx2.Client(base_url=up.url, timeout=10) as kept:
        for number in range(_SILENT):
            address = (where.hostname or "", where.port or 0)
            silent.enter_context(socket.create_connection(address, timeout=10))
            if number % 10 == 0:
                answer = kept.post("/v1/workspaces/recorded/writes", json={"path": f"{number}.py"})
                assert answer.status_code == 202, answer.text
                stored = answer.json()["position"]
            if number % 50 == 0:
                with httpx2.Client(base_url=up.url, timeout=10) as fresh:
                    assert fresh.get("/v1/workspaces/recorded").status_code == 200
        assert up.client.http.get("/readyz").status_code == 200
    with up.store.read() as reader:
        assert reader.last_position() >= stored > _SILENT // 10
    said = [line for line in process.output.splitlines()[lines:] if _OF_THE_WRITES not in line]
    assert len(said) <= _LINES_MOST, said
