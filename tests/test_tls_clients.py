"""Whoever of ours calls by https wants a certificate that it can check, and goes nowhere but where it was sent."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.cli.client import Client
from orchestrator.errors import OrchestratorError
from orchestrator.ports.executor import Readiness
from orchestrator.sealing.sinks import WebhookSink
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store
from tests.audit.sealing import write
from tests.audit.test_checkpoint_sinks import sealing_to
from tests.executors.test_readiness import seen
from tests.servers.process import LOOPBACK
from tests.servers.proxies import make_certificate


class Seen(BaseHTTPRequestHandler):
    """Notes what it is asked for, and sends everybody elsewhere."""

    asked: list[str]
    elsewhere = ""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(307 if self.elsewhere else 200)
        self.send_header("Location", self.elsewhere)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_GET  # noqa: N815 (named by the library)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def listening(tls: ssl.SSLContext | None = None, elsewhere: str = "") -> Iterator[tuple[int, list[str]]]:
    """Serve on a free port; yield it, and the paths that are asked for."""
    asked: list[str] = []
    kind = type("Handler", (Seen,), {"asked": asked, "elsewhere": elsewhere})
    server = HTTPServer((LOOPBACK, 0), kind)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who turns away is what is tested
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def unknown(tmp_path: Path) -> ssl.SSLContext:
    """A server's side of TLS whose certificate nobody knows."""
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "cert.key")
    return context


def called(url: str, folder: Path) -> list[object]:
    """Have the commands, a look at readiness and the sender of checkpoints call; return what came of it."""
    found: list[object] = []
    with pytest.raises(OrchestratorError) as refused:
        Client(url, retries=0).get("/v1/workspaces")
    found.append(str(refused.value))
    found.append(seen({"type": "http", "url": f"{url}/ready", "status": 200}))
    database = f"sqlite:///{folder / 'log.db'}"
    upgrade(database)
    with closing(open_store(database)) as store:
        write(store)
        found += sealing_to(store, WebhookSink(f"{url}/checkpoints")).run().problems
    return found


def test_a_certificate_that_nobody_knows_is_not_taken(unknown: ssl.SSLContext, tmp_path: Path) -> None:
    with listening(unknown) as (port, asked):
        said, ready, problem = called(f"https://{LOOPBACK}:{port}", tmp_path)
    assert "certificate" in str(said).lower()
    assert ready is Readiness.NOT_YET
    assert "checkpoint webhook" in str(problem)
    assert asked == [], "neither a path nor a key was sent"


def test_nobody_is_sent_elsewhere(tmp_path: Path) -> None:
    with listening() as (elsewhere, wrongly), listening(elsewhere=f"http://{LOOPBACK}:{elsewhere}/x") as (port, asked):
        _, ready, problem = called(f"http://{LOOPBACK}:{port}", tmp_path)
    assert ready is Readiness.NOT_YET
    assert "answered 307" in str(problem)
    assert sorted(asked) == ["/checkpoints", "/ready", "/v1/workspaces"]
    assert wrongly == []
