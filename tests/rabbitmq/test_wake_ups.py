"""Bells and ticks on RabbitMQ: refused or frozen it costs a bounded wait, and its queue does not grow for ever."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from orchestrator.errors import BrokerUnavailable
from tests.servers.process import LOOPBACK
from tests.servers.rabbitmq import RabbitServer
from tests.waiting import wait_until
from workers.app import BELL_EXPIRES_S, CHORE_TASK, check_broker, create_celery
from workers.doorbell import CeleryDoorbell


def test_a_bell_to_a_broker_that_is_away_says_so_soon(rabbit: RabbitServer) -> None:
    """The second one too: kombu would try to connect for ever inside it."""
    bell = CeleryDoorbell(create_celery(rabbit.url, tick_s=1, slots=1))
    bell.ring("ws")
    rabbit.stop()
    for _ in range(3):
        started_s = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="for ws"):
            bell.ring("ws")
        assert time.monotonic() - started_s < 1.5
    rabbit.start()
    bell.ring("ws")
    assert rabbit.waiting() == 1


def test_a_frozen_broker_holds_neither_a_bell_nor_a_check_for_long(rabbit: RabbitServer) -> None:
    app = create_celery(rabbit.url, tick_s=1, slots=1)
    CeleryDoorbell(app).ring("ws")
    rabbit.pause()
    started_s = time.monotonic()
    CeleryDoorbell(app).ring("ws")  # nobody confirms a bell: it may be lost, and the next tick rings again
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        check_broker(app)
    assert time.monotonic() - started_s < 12


def test_a_wrong_password_is_a_broker_that_is_away(rabbit: RabbitServer) -> None:
    app = create_celery(rabbit.url.replace("//", "//guest:secret@", 1), tick_s=1, slots=1)
    attempts: tuple[Callable[[], None], ...] = (lambda: check_broker(app), lambda: CeleryDoorbell(app).ring("ws"))
    for attempt in attempts:
        with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED") as raised:
            attempt()
        assert "secret" not in str(raised.value)


def test_what_no_worker_takes_expires_in_the_queue(rabbit: RabbitServer) -> None:
    bell = CeleryDoorbell(create_celery(rabbit.url, tick_s=1, slots=1))
    for _ in range(50):
        bell.ring("ws")
    wait_until(lambda: rabbit.waiting() == 50, what="all bells wait")
    wait_until(lambda: rabbit.waiting() == 0, what="all have expired", timeout_s=BELL_EXPIRES_S + 10)


def test_ticks_come_back_with_the_broker_and_with_the_queue(rabbit: RabbitServer, tmp_path: Path) -> None:
    ticks, said = tmp_path / "ticks", tmp_path / "said"
    with ticks.open("w") as stdout, said.open("w") as stderr:
        command = [sys.executable, "-m", "tests.workers.ticking", rabbit.url]
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=Path(__file__).parents[2])

    def await_ticks() -> None:
        seen = len(ticks.read_text())
        wait_until(lambda: len(ticks.read_text()) > seen + 20, what="ticks", timeout_s=20)

    try:
        await_ticks()
        rabbit.stop()
        wait_until(lambda: "Connection refused" in said.read_text(), what="the worker has noticed")
        rabbit.start()
        await_ticks()
        rabbit.delete_queue()
        await_ticks()
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in said.read_text().splitlines()]  # one object a line
    assert not any("exception" in line for line in lines), "a broker's trouble is one line without a stack"


class Cutting(socketserver.BaseRequestHandler):
    """A way to a RabbitMQ that drops a connection as soon as it is to be consumed from: it was there, and is gone."""

    port = 0
    consume = b"\x00\x3c\x00\x14"  # the method basic.consume

    def handle(self) -> None:
        with socket.create_connection((LOOPBACK, self.port)) as beyond, ExitStack() as closing:
            closing.callback(beyond.shutdown, socket.SHUT_RDWR)
            answers = threading.Thread(target=self.forward_answers, args=(beyond,), daemon=True)
            answers.start()
            while (sent := self.request.recv(4096)) and self.consume not in sent:
                beyond.sendall(sent)

    def forward_answers(self, beyond: socket.socket) -> None:
        with suppress(OSError):
            while answer := beyond.recv(4096):
                self.request.sendall(answer)


def test_a_broker_that_drops_its_connections_and_a_message_nobody_takes_are_lines_without_a_stack(
    rabbit: RabbitServer, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    handler = type("CuttingThere", (Cutting,), {"port": rabbit.port})
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for url, word in (
            (f"amqp://{LOOPBACK}:{server.server_address[1]}//", "Frequent restarts"),
            (rabbit.url, "message.refused"),
        ):
            rabbit.flush()
            app = create_celery(rabbit.url, tick_s=1, slots=1)
            app.send_task(CHORE_TASK, args=("seal",))  # `ticking` has none
            with said.open("w") as stderr:
                command = [sys.executable, "-m", "tests.workers.ticking", url]
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=stderr, cwd=Path(__file__).parents[2]
                )
            try:
                wait_until(lambda word=word: word in said.read_text(), what=word, timeout_s=30)  # type: ignore[misc]
            finally:
                process.kill()
                process.wait()
            assert "Traceback" not in said.read_text()
        server.shutdown()
