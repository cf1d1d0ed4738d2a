from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator.errors import ExecutionCancelled
from orchestrator.ports.executor import Order, Readiness
from tests.executors.world import eventually, in_thread, order_for, processes_of
from workers.executors.bounded_run import RecordedUnder
from workers.executors.command import CommandExecutor
from workers.executors.readiness import look, normalise_ready


class Answers(BaseHTTPRequestHandler):
    """/200 answers 200; /302 sends to /200; /drip sends one byte of a header at a time for ever."""

    def do_GET(self) -> None:
        if self.path == "/drip":
            self._drip()
            return
        code = int(self.path[1:])
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header("Location", "/500")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        try:
            while not self.server.dripping_ended.wait(0.02):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        except OSError:  # the caller gave up, as it should
            return

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.dripping_ended = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.dripping_ended.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def listening(*, accepting: bool = True) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if accepting:
            listener.listen()
        yield listener.getsockname()[1]


def seen(ready: dict[str, Any], order: Order | None = None) -> Readiness:
    return look(normalise_ready(ready), order or any_order(), RecordedUnder())


def any_order(**more: Any) -> Order:
    return order_for(CommandExecutor(), {"argv": ["true"], **more})


def test_defaults() -> None:
    assert normalise_ready({}) == {"type": "none", "interval": "500ms", "timeout": "2s"}
    assert normalise_ready({"type": "tcp", "port": 80})["host"] == "127.0.0.1"


def test_tcp() -> None:
    with listening() as port:
        assert seen({"type": "tcp", "port": port}) is Readiness.READY
        assert seen({"type": "tcp", "port": port, "host": "localhost"}) is Readiness.READY
    with listening(accepting=False) as port:
        assert seen({"type": "tcp", "port": port}) is Readiness.NOT_YET
    assert seen({"type": "tcp", "port": 80, "host": "no-such-host.invalid"}) is Readiness.NOT_YET


@pytest.mark.parametrize(
    ("path", "status", "readiness"),
    [
        ("/200", None, Readiness.READY),
        ("/204", None, Readiness.READY),
        ("/302", None, Readiness.READY),  # and is not followed: /500 would be NOT_YET
        ("/400", None, Readiness.NOT_YET),
        ("/503", None, Readiness.NOT_YET),
        ("/401", 401, Readiness.READY),
        ("/200", 401, Readiness.NOT_YET),
    ],
)
def test_http(base: str, path: str, status: int | None, readiness: Readiness) -> None:
    ready = {"type": "http", "url": base + path} | ({} if status is None else {"status": status})
    assert seen(ready) is readiness


def test_http_does_not_ask_a_proxy_of_the_environment(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert seen({"type": "http", "url": base + "/200"}) is Readiness.READY


def test_http_of_what_is_no_http_server() -> None:
    with listening(accepting=False) as port:
        assert seen({"type": "http", "url": f"http://127.0.0.1:{port}/"}) is Readiness.NOT_YET
        assert seen({"type": "http", "url": f"https://127.0.0.1:{port}/"}) is Readiness.NOT_YET


def test_a_server_that_drips_or_is_silent_does_not_hold_a_look_beyond_its_timeout(base: str) -> None:
    with listening() as silent:
        for url in (f"{base}/drip", f"http://127.0.0.1:{silent}/"):
            begun_s = time.monotonic()
            assert seen({"type": "http", "url": url, "timeout": "200ms"}) is Readiness.NOT_YET
            assert 0.2 <= time.monotonic() - begun_s < 1.2


def test_a_stop_ends_a_look() -> None:
    order = any_order()
    with listening() as silent:
        ready = {"type": "http", "url": f"http://127.0.0.1:{silent}/", "timeout": "30s"}
        with in_thread(lambda: seen(ready, order)) as raised:
            order.stop.set()
    assert [type(error) for error in raised] == [ExecutionCancelled]


def test_command() -> None:
    order = any_order(env={"ANSWER": "42"})
    asks = ["sh", "-c", '[ "$ANSWER" = 42 ] && [ -n "$ORCHESTRATOR_CYCLE" ]']
    assert seen({"type": "command", "argv": asks}, order) is Readiness.READY
    assert seen({"type": "command", "argv": asks}) is Readiness.NOT_YET
    assert seen({"type": "command", "argv": ["no-such-program"]}) is Readiness.FAILED


def test_command_that_takes_too_long_is_ended() -> None:
    order = any_order()
    ready = {"type": "command", "argv": ["sh", "-c", "sleep 1000"], "timeout": "100ms"}
    assert seen(ready, order) is Readiness.NOT_YET
    eventually(lambda: processes_of(order.workspace) == [])


@pytest.mark.parametrize("ready", [{"type": "tcp", "port": 1}, {"type": "http"}])
def test_a_resolver_that_does_not_answer_holds_neither_a_look_nor_a_stop(
    ready: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, real = threading.Event(), socket.getaddrinfo

    def silent(host: Any, *args: Any, **how: Any) -> Any:
        if host in ("slow.example", b"slow.example"):
            answered.wait(30)
        return real("127.0.0.1", *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    named = {"url": "http://slow.example:1/"} if ready["type"] == "http" else {"host": "slow.example"}
    try:
        begun_s = time.monotonic()
        assert seen({**ready, **named, "timeout": "200ms"}) is Readiness.NOT_YET
        assert time.monotonic() - begun_s < 5
        order = any_order()
        with in_thread(lambda: seen({**ready, **named, "timeout": "30s"}, order)) as raised:
            order.stop.set()
        assert [type(error) for error in raised] == [ExecutionCancelled]
    finally:
        answered.set()
