"""The HTTP server as a part of a process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from fastapi import FastAPI

from orchestrator.api.tail import LogTail
from orchestrator.cli.http_server import HttpServer
from orchestrator.errors import InvalidInput
from orchestrator.storage.memory import MemoryEventStore
from tests.waiting import wait_until


def served_side_of(client: socket.socket) -> socket.socket | None:
    """Return our own process's end of the client's connection."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found = socket.socket(fileno=os.dup(int(entry.name)))
            if found.getpeername() == client.getsockname():
                return found
            found.close()
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
        accepted = wait_until(lambda: served_side_of(client), what="the server's end")
        nodelay = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()
    server.stop(5)
    assert nodelay
    assert not server.alive


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}"):
            HttpServer(FastAPI(), host="127.0.0.1", port=port)
