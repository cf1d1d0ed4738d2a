"""The HTTP server as a part of a process."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI, Request

from orchestrator.api.tail import LogTail
from orchestrator.cli.http_server import HttpServer, allow_many_connections
from orchestrator.errors import InvalidInput
from tests.memory_store.store import MemoryEventStore


def nodelay_of_served_side(client: socket.socket) -> bool | None:
    """Return whether our own process's end of the client's connection sends at once; None if there is none yet."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError), closing(socket.socket(fileno=os.dup(int(entry.name)))) as found:
            if found.getpeername() == client.getsockname():
                return bool(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return None


@contextmanager
def running(app: FastAPI) -> Iterator[tuple[str, int]]:
    """Serve an app; give where."""
    app.state.tail = LogTail(MemoryEventStore())
    server = HttpServer(app, host="127.0.0.1", port=0)
    server.start()
    host, port = server.url.removeprefix("http://").split(":")
    yield host, int(port)
    server.stop(5)
    assert not server.alive


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    with running(FastAPI()) as address, socket.create_connection(address) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 404"
        assert nodelay_of_served_side(client) is True


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}: .* ORCHESTRATOR_BIND"):
            HttpServer(FastAPI(), host="127.0.0.1", port=port)


@pytest.mark.parametrize(
    ("head", "endless"),
    [
        (b"GET /", b"a" * 4096),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"a" * 4096),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: a\r\n" * 700),
        (b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 4096),
    ],
    ids=["address", "header", "headers", "trailer"],
)
def test_a_head_without_an_end_is_cut_off(head: bytes, endless: bytes) -> None:
    with running(FastAPI()) as address, socket.create_connection(address, 10) as client:
        client.sendall(head)
        with suppress(ConnectionError):
            for _ in range(100_000_000 // len(endless)):
                client.sendall(endless)
            pytest.fail("it took 100 MB")


def test_a_large_body_in_one_piece_with_its_head_is_no_large_head() -> None:
    app = FastAPI()

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    body = b"a" * 900_000
    with running(app) as (host, port):
        for _ in range(3):
            assert httpx2.post(f"http://{host}:{port}/size", content=body, timeout=10).json() == len(body)


def test_as_many_connections_as_the_machine_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        allow_many_connections()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536), hard)
