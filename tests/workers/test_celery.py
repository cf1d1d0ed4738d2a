"""Celery around the service: bells and ticks that arrive, a broker that is away, a stop that ends."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import redis
import structlog
from celery import Celery

from orchestrator.audit.periodic_run import PeriodicVerification
from orchestrator.domain.events import CycleSucceeded
from orchestrator.errors import BrokerUnavailable
from orchestrator.logs import configure_logs
from orchestrator.storage.opening import open_store
from tests.memory_store.store import MemoryEventStore
from tests.servers.redis import RedisServer
from tests.service.world import IDS, Scripted, drainer, events, write
from tests.waiting import wait_until
from tests.workers.test_tasks import register
from workers.app import CHORE_TASK, CHORES_EVERY_S, QUEUE, TICK_TASK, check_broker, create_celery, safe_url
from workers.celery_threads import BeatThread, WorkerThread
from workers.chores import Chores
from workers.doorbell import CeleryDoorbell
from workers.redis_transport import MOST_WAITING
from workers.tasks import Ticker, register_tasks

_numbers = count(1)


@contextmanager
def json_logs() -> Iterator[None]:
    """Logs as a machine gets them; the test runner's own handlers come back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    configure_logs(form="json")
    try:
        yield
    finally:
        root.handlers, root.level = before
        structlog.reset_defaults()


def closed_port(app_tick_s: float = 0.2) -> Celery:
    return create_celery("redis://:secret@127.0.0.1:1/0", tick_s=app_tick_s, slots=1)


def test_a_bell_to_a_broker_that_is_away_says_so_soon() -> None:
    started_s = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="for ws"):
        CeleryDoorbell(closed_port()).ring("ws")
    assert time.monotonic() - started_s < 1.5


def test_a_broker_that_is_away_is_named_without_its_password() -> None:
    app = closed_port()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1") as raised:
        check_broker(app)
    assert "secret" not in str(raised.value)
    assert "secret" not in safe_url(app)
    check_broker(create_celery("memory://", tick_s=1, slots=1))


def test_a_frozen_broker_does_not_hold_a_tick_for_long(redis_server: RedisServer) -> None:
    bell = CeleryDoorbell(create_celery(redis_server.url, tick_s=1, slots=1))
    bell.ring("ws")
    redis_server.pause()
    started_s = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        bell.ring("ws")
    assert time.monotonic() - started_s < 12
    redis_server.resume()


def test_the_queue_of_redis_is_bounded_while_no_worker_runs(redis_server: RedisServer) -> None:
    """Redis drops no message that is too old: what beat sent in a day was some 110 MB. The newest ones are kept."""
    app = create_celery(redis_server.url, tick_s=1, slots=1)
    bell = CeleryDoorbell(app)
    for number in range(MOST_WAITING + 50):
        bell.ring(f"ws-{number}")
    app.send_task(TICK_TASK)
    with redis.Redis(port=redis_server.port) as client:
        waiting = client.lrange(QUEUE, 0, -1)
    assert isinstance(waiting, list)
    assert len(waiting) == MOST_WAITING
    newest, oldest = json.loads(waiting[0]), json.loads(waiting[-1])
    assert newest["headers"]["task"] == TICK_TASK
    assert "ws-51" in oldest["headers"]["argsrepr"]


@pytest.mark.parametrize("slots", [1, 3])
def test_from_beat_to_restart_in_one_process(slots: int, capfd: pytest.CaptureFixture[str]) -> None:
    store = MemoryEventStore()
    register(store, quiet="50ms", min_interval=0)
    write(store, "ws", "a")
    app = create_celery(f"memory://host-{next(_numbers)}/", tick_s=0.2, slots=slots)
    worker = drainer(store, Scripted(), slots=slots)
    ticks = Ticker(store, CeleryDoorbell(app), IDS, worker, tick_s=0.2)
    register_tasks(app, ticks, worker)
    consumer, beat = WorkerThread(app, name="w@host"), BeatThread(app)
    with json_logs():
        consumer.start()
        beat.start()
        assert consumer.await_ready(10)
        wait_until(lambda: events(store, CycleSucceeded), what="a restart")
        assert consumer.alive
        assert beat.alive
        started_s = time.monotonic()
        beat.stop()
        ticks.stop()
        worker.stop(grace_s=1)
        consumer.stop()
        assert time.monotonic() - started_s < 5
        wait_until(lambda: not beat.alive, what="beat's end")
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line for line in said if line["level"] in ("error", "critical")] == []


def test_ticks_come_back_with_the_broker(redis_server: RedisServer, tmp_path: Path) -> None:
    ticks, said = tmp_path / "ticks", tmp_path / "said"
    with ticks.open("w") as stdout, said.open("w") as stderr:
        command = [sys.executable, "-m", "tests.workers.ticking", redis_server.url]
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=Path(__file__).parents[2])
    try:
        wait_until(lambda: len(ticks.read_text()) > 20, what="ticks", timeout_s=20)
        redis_server.stop()
        wait_until(lambda: "Cannot connect" in said.read_text(), what="the worker has noticed")
        wait_until(lambda: said.read_text().count("Message Error") > 1, what="beat has noticed")
        seen = len(ticks.read_text())
        redis_server.start()
        wait_until(lambda: len(ticks.read_text()) > seen, what="ticks again", timeout_s=10)
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in said.read_text().splitlines()]  # one object a line
    assert not any("exception" in line for line in lines), "a broker's trouble is one line without a stack"
    assert not any("\n" in line["event"].rstrip() for line in lines if line["event"].startswith("Message"))


def test_two_apps_of_one_process_have_tasks_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    stores = [MemoryEventStore(), MemoryEventStore()]
    apps = []
    for store in stores:
        app = create_celery("memory://", tick_s=1, slots=1)
        worker = drainer(store, Scripted())
        register_tasks(app, Ticker(store, CeleryDoorbell(app), IDS, worker, tick_s=0.01), worker)
        apps.append(app)
    for number, app in enumerate(apps):
        app.tasks[TICK_TASK]()
        ticked = []
        for store in stores:
            with store.read() as reader:
                ticked.append(reader.last_tick_at() is not None)
        assert ticked == [True, number == 1]


def test_beat_asks_for_a_verification_and_the_task_is_one(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    register(store)
    app, worker = create_celery("memory://", tick_s=1, slots=1), drainer(store, Scripted())
    ticks = Ticker(store, CeleryDoorbell(app), IDS, worker, tick_s=0.01)
    register_tasks(app, ticks, worker, Chores({"verify": PeriodicVerification(store).run}))
    app.tasks[CHORE_TASK]("verify")

    with store.read() as reader:
        verified = reader.verified()
        assert verified is not None
        assert verified.position == reader.last_position()
    store.close()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
    asked = app.conf.beat_schedule["verify"]
    assert (asked["task"], asked["args"]) == (CHORE_TASK, ("verify",))
    assert asked["schedule"].run_every.total_seconds() == CHORES_EVERY_S["verify"]


def test_a_broker_that_refuses_with_a_page_of_advice_is_one_line() -> None:
    """Redis does, in protected mode: 1,000 characters of what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    asking, _ = server.accept()
                except OSError:
                    return
                with asking:
                    asking.sendall(b"-DENIED it is in protected mode. " + b"Do this, or that. " * 60 + b"\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        app = create_celery(f"redis://127.0.0.1:{server.getsockname()[1]}/0", tick_s=1, slots=1)
        with pytest.raises(BrokerUnavailable, match=r"does not answer: .*protected mode") as refused:
            check_broker(app)
        server.shutdown(socket.SHUT_RDWR)

    assert len(str(refused.value)) < 320
