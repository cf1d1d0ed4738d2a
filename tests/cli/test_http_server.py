"""The HTTP server as a part of a process."""

from __future__ import annotations

import os
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fastapi import FastAPI

from orchestrator.api.tail import LogTail
from orchestrator.cli.http_server import HttpServer
from orchestrator.errors import InvalidInput
from tests.memory_store.store import MemoryEventStore


def nodelay_of_served_side(client: socket.socket) -> bool | None:
    """Return whether our own process's end of the client's connection sends at once; None if there is none yet."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError), closing(socket.socket(fileno=os.dup(int(entry.name)))) as found:
            if found.getpeername() == client.getsockname():
                return bool(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return None


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    app = FastAPI()
    app.state.tail = LogTail(MemoryEventStore())
    server = HttpServer(app, host="127.0.0.1", port=0)
    server.start()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 404"
        nodelay = nodelay_of_served_side(client)
    server.stop(5)
    assert nodelay is True
    assert not server.alive


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}"):
            HttpServer(FastAPI(), host="127.0.0.1", port=port)
