"""The owner's key goes to no other user's program, also where that takes the port between two requests."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from orchestrator.cli import key_at_hand
from orchestrator.cli.client import Client
from orchestrator.errors import Unavailable
from orchestrator.owner_key import make_owner_key
from tests.cli.conftest import running
from tests.system.fork_server import ForkServer

WRITE = [{"workspace": "ws", "path": "a"}]
NOBODY = 65534
FORK = multiprocessing.get_context("fork")


class Asked(BaseHTTPRequestHandler):
    """Answers as an API does, and keeps what it was sent."""

    seen: list[str | None]

    def do_POST(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def noted_server(data: Path) -> Iterator[tuple[str, str, list[str | None]]]:
    """Yield the URL of a server that an ``up`` of that data folder has noted as its own, its key, and what it saw."""
    seen: list[str | None] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Asked,), {"seen": seen}))
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    key = make_owner_key(data / "owner.key")
    (data / "url").write_text(f"{url}\n")
    try:
        yield url, f"Bearer {key}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def test_who_listens_is_looked_at_for_each_request(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with noted_server(data) as (url, key, seen), Client(url) as client:
        client.post("/v1/writes", WRITE)
        with monkeypatch.context() as patch:
            patch.setattr(key_at_hand, "_listeners", lambda port: {4711})
            client.post("/v1/writes", WRITE)
        client.post("/v1/writes", WRITE)
    assert seen == [key, None, key]


@pytest.mark.parametrize("before", [0, 1], ids=["a new connection", "a kept one"])
def test_who_takes_the_port_before_the_key_is_sent_does_not_get_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    with noted_server(data) as (url, key, seen), Client(url) as client:
        for _ in range(before):
            client.post("/v1/writes", WRITE)
        looks = iter([{os.geteuid()}])
        monkeypatch.setattr(key_at_hand, "_listeners", lambda port: next(looks, {4711}))
        with pytest.raises(Unavailable, match="another user's program listens at"):
            client.post("/v1/writes", WRITE)
    assert seen == before * [key]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_another_user_who_takes_the_port_of_an_up_that_has_ended_gets_no_key(
    data: Path, monkeypatch: pytest.MonkeyPatch, forks: ForkServer
) -> None:
    """`watch` goes on over the end of an `up`; it sent the key to whoever came after it."""
    up = data / "up"
    up.mkdir()
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(up))
    with running(up, forks) as server:
        client = Client(server.url, retries=0)
        client.post("/v1/writes", WRITE)
    sees, tells = FORK.Pipe(duplex=False)
    thief = FORK.Process(target=_listen_as_nobody, args=(urlsplit(server.url).port, tells), daemon=True)
    thief.start()
    try:
        assert sees.recv() == "listening"
        with client:
            client.post("/v1/writes", WRITE)
        assert sees.recv() is None
    finally:
        thief.kill()
        thief.join()


def _listen_as_nobody(port: int, tells: Connection) -> None:
    """Be another user's program, forked: that user may not run the interpreter of these tests."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    seen: list[str | None] = []
    with HTTPServer(("127.0.0.1", port), type("There", (Asked,), {"seen": seen})) as server:
        tells.send("listening")
        server.handle_request()
    tells.send(seen.pop())
