"""Connections that bring nothing, half of a request, or a whole one and then an end."""

from __future__ import annotations

import errno
import json
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import structlog

from orchestrator.api import server
from tests.api.conftest import Api

HEAD = "Host: localhost\r\nContent-Type: application/json\r\n"


def connected(api: Api) -> socket.socket:
    where = urlsplit(api.url)
    return socket.create_connection((where.hostname or "", where.port or 0), 20)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server ends the connection."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def request(body: str, path: str = "/v1/workspaces/ws/writes") -> bytes:
    return f"POST {path} HTTP/1.1\r\n{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look ten times a second: what takes half a minute takes less than one."""
    monkeypatch.setattr(server, "_LOOK_EVERY_TICKS", 1)


@pytest.mark.usefixtures("brief")
def test_what_brings_no_request_is_ended_and_what_waits_for_an_answer_is_not(api: Api) -> None:
    write = api.write()["id"]
    with ExitStack() as stack:
        silent, half, second, unsent, waits = (stack.enter_context(connected(api)) for _ in range(5))
        half.sendall(b"GET /livez HTTP/1.1\r\nHost: local")
        second.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTT")
        unsent.sendall(f"POST /none HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\n".encode())
        waits.sendall(f"GET /v1/writes/{write}?wait=2 HTTP/1.1\r\n{HEAD}\r\n".encode())
        assert (read_all(silent), read_all(half)) == (b"", b"")
        assert read_all(second).count(b"HTTP/1.1 200") == 1
        assert read_all(unsent).startswith(b"HTTP/1.1 404")
        assert waits.recv(12) == b"HTTP/1.1 200"


def test_a_thousand_idle_connections_cost_no_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "connections_most", lambda: 50)
    with ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(connected(api))
        for _ in range(20):
            assert api.http.get("/livez", headers={"Connection": "close"}).status_code == 200
        assert len(api.server.server_state.connections) <= 50


def test_no_descriptor_left_is_said_once_and_counted() -> None:
    with structlog.testing.capture_logs() as lines:
        handler = server.OutOfFiles()
        for _ in range(500):
            handler(None, {"exception": OSError(errno.EMFILE, "Too many open files")})  # type: ignore[arg-type]
    assert [(line["event"], line["log_level"]) for line in lines] == [("connections.refused", "error")]


@pytest.mark.parametrize("pieces", [1, 2])
def test_who_has_finished_sending_is_answered(api: Api, pieces: int) -> None:
    before = api.stored()
    with connected(api) as connection:
        connection.sendall(request('{"path": "a"}') * pieces)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).count(b"HTTP/1.1 202") == pieces
    assert api.stored() == before + pieces


def test_who_ends_amid_a_body_stores_nothing(api: Api) -> None:
    before = api.stored()
    with connected(api) as connection:
        connection.sendall(request('{"path": "a"}')[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert api.stored() == before


def test_what_would_wait_ends_with_its_sender(api: Api) -> None:
    """Whoever is gone looks the same: nobody holds a place for half a minute."""
    write = api.write()["id"]
    with connected(api) as held, connected(api) as stream:
        held.sendall(f"GET /v1/writes/{write}?wait=60 HTTP/1.1\r\n{HEAD}\r\n".encode())
        stream.sendall(f"GET /v1/events/stream HTTP/1.1\r\n{HEAD}\r\n".encode())
        assert stream.recv(12) == b"HTTP/1.1 200"
        for connection in (held, stream):
            connection.shutdown(socket.SHUT_WR)
        body = read_all(held).partition(b"\r\n\r\n")[2]
        assert json.loads(body)["status"] == "pending"
        read_all(stream)


@pytest.mark.parametrize("path", ["/v1/workspaces/ws/writes", "/v1/writes", "/v1/workspaces/ws/restarts"])
def test_a_large_body_is_refused_before_it_is_sent(api: Api, path: str) -> None:
    with connected(api) as connection:
        head = f"POST {path} HTTP/1.1\r\n{HEAD}Expect: 100-continue\r\nContent-Length: "
        connection.sendall(f"{head}{1024 * 1024 + 1}\r\n\r\n".encode())
        assert read_all(connection).startswith(b"HTTP/1.1 413")
    with connected(api) as connection:
        connection.sendall(f"{head}2\r\n\r\n".encode())
        assert connection.recv(21) == b"HTTP/1.1 100 Continue"
