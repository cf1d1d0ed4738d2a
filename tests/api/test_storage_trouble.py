"""F27 to F29 at the API: a locked file, a pool that is used up, a reader of the stream that has stopped reading."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import httpx2
import psycopg
import pytest

from orchestrator import bootstrap
from orchestrator.api.app import create_app
from orchestrator.api.routes.stream import OpenStreams
from orchestrator.bootstrap import open_services
from orchestrator.cli import http_server
from orchestrator.cli.http_server import HttpServer
from orchestrator.settings import load_settings
from orchestrator.storage.engines import POSTGRES_CONNECTIONS
from orchestrator.storage.sqlite import SqliteEventStore
from orchestrator.storage.urls import database_url
from tests.api.conftest import served
from tests.servers.process import LOOPBACK
from tests.waiting import wait_until


def check_unavailable(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "storage-unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_a_file_that_another_process_keeps_locked_is_503_in_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "open_store", lambda url, **wanted: SqliteEventStore(url, busy_timeout_ms=200))
    path = database_url(sqlite_url).database
    assert path is not None
    with served(sqlite_url) as api, closing(sqlite3.connect(path, isolation_level=None)) as other:
        api.put_workspace()
        first = api.write(source="s", id="1")
        other.execute("BEGIN IMMEDIATE")
        check_unavailable(api.http.post("/v1/workspaces/ws/writes", json={"path": "a.py", "source": "s", "id": "2"}))
        assert api.get(f"/v1/writes/{first['id']}")["status"] == "pending", "readers go on"
        other.execute("ROLLBACK")
        assert api.write(source="s", id="2")["replayed"] is False, "what was refused was not stored"
        assert api.write(source="s", id="1")["id"] == first["id"]


@contextmanager
def locked_row(url: str, workspace: str) -> Iterator[None]:
    """Hold a workspace's row in somebody else's transaction."""
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM workspaces WHERE id = %s FOR UPDATE", [workspace])
        yield


def test_a_row_that_somebody_keeps_locked_holds_back_only_its_own_writes(postgres_url: str) -> None:
    def write(workspace: str, number: int) -> httpx2.Response:
        body = {"path": "a.py", "id": f"{workspace}-{number}"}
        return api.http.post(f"/v1/workspaces/{workspace}/writes", json=body)

    with served(postgres_url) as api, ThreadPoolExecutor(POSTGRES_CONNECTIONS) as pool:
        for workspace in ("ws", "other"):
            api.put_workspace(workspace)
        with locked_row(postgres_url, "ws"):
            held = [pool.submit(write, "ws", number) for number in range(POSTGRES_CONNECTIONS)]
            assert {write("other", number).status_code for number in range(20)} == {202}
            assert not any(each.done() for each in held), "the others had to wait for the row"
            assert api.http.get("/livez").status_code == 200
        assert {each.result(20).status_code for each in held} == {202}
        again = write("ws", 0)
        assert (again.status_code, again.json()["replayed"]) == (202, True)


def test_a_row_that_is_never_let_go_refuses_its_own_writes_in_time(postgres_url: str) -> None:
    with served(postgres_url) as api:
        api.put_workspace("ws")
        with locked_row(postgres_url, "ws"):
            check_unavailable(api.http.post("/v1/workspaces/ws/writes", json={"path": "a.py", "id": "1"}, timeout=20))
        assert api.write(id="1")["replayed"] is False, "what was refused was not stored"


@contextmanager
def serving(url: str) -> Iterator[HttpServer]:
    """Serve the API as the product does, on a socket that it has bound itself."""
    services = open_services(load_settings({}, database_url=url))
    server = HttpServer(create_app(services), host=LOOPBACK, port=0)
    server.start()
    yield server
    server.stop(10)
    services.store.close()


def unsent(server: HttpServer) -> int:
    """How many bytes wait in this process for the reader that has the most."""
    connections = list(server._server.server_state.connections)
    return max((connection.transport.get_write_buffer_size() for connection in connections), default=0)


def test_a_reader_that_stops_reading_holds_back_nobody_and_is_cut_off(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F29. What is kept for it is a page and a buffer, and it makes room for others after a while."""
    monkeypatch.setattr(http_server, "UNREAD_MOST_MS", 1_000)
    with serving(sqlite_url) as server, httpx2.Client(base_url=server.url, timeout=20) as http:
        streams: OpenStreams = server._server.app.state.streams
        http.put("/v1/workspaces/ws", json={"executor": "simulated"})
        for number in range(12):
            body = [{"workspace": "ws", "path": f"{number}/{line}/{'x' * 3_900}"} for line in range(200)]
            assert http.post("/v1/writes", json=body).status_code == 202
        with socket.create_connection(server._socket.getsockname()) as stuck:
            stuck.sendall(b"GET /v1/events/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            most = wait_until(lambda: unsent(server), what="it is stuck", every_s=0.001)
            with http.stream("GET", "/v1/events/stream", params={"after": 0}) as response:
                assert any(line == "id: 2400" for line in response.iter_lines()), "another reader gets everything"
            most = max(most, unsent(server))
            wait_until(lambda: streams.open == 0, what="it is cut off")
    assert most < 2_000_000, "what was not sent is kept in memory"
