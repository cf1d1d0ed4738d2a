"""F11: what somebody else puts into the queue ends no worker, holds nothing back and is not kept."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.chaos.production import ChaosProduction
from tests.waiting import wait_until
from workers.app import CHORE_TASK, DRAIN_TASK, TICK_TASK

QUEUE = "orchestrator"
TIMES = 12
"""Each message so often: more than both workers may hold unacknowledged, so that a leak of one each would stop them."""


class _Calls:
    """What a pickle may do to whoever loads it: here, make a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.file, "w")


def message(
    task: str | None, body: bytes, *, content_type: str = "application/json", tag: str = "t", **headers: Any
) -> bytes:
    """Return a message as kombu writes it to Redis. ``task`` None: without any header."""
    named = {} if task is None else {"lang": "py", "task": task, "id": tag, "root_id": tag, **headers}
    properties = {
        "delivery_tag": tag,
        "correlation_id": tag,
        "body_encoding": "base64",
        "delivery_mode": 2,
        "priority": 0,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
    }
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": named,
        "properties": properties,
    }
    return json.dumps(envelope).encode()


CALL = json.dumps([[], {}, {}]).encode()


def foreign(victim: str) -> dict[str, bytes]:
    """Every kind of message that is none of ours, by name."""
    picked = pickle.dumps(([], {}, _Calls(victim)))
    return {
        "bytes": b"\x80\xff\x00 no text",
        "no JSON": b"{half of",
        "JSON of another kind": b"[1, 2]",
        "no envelope": b"{}",
        "an envelope without a tag": b'{"properties": {}, "body": ""}',
        "a body that is no base64": message(TICK_TASK, CALL).replace(b'"body": "', b'"body": "%%%'),
        "no headers": message(None, CALL),
        "headers that are null": message(None, CALL).replace(b'"headers": {}', b'"headers": null'),
        "a foreign task": message("celery.backend_cleanup", CALL),
        "another's task": message("shop.send_mail", CALL),
        "a task that is a list": message(TICK_TASK, CALL).replace(b'"task": "orchestrator.tick"', b'"task": ["x"]'),
        "no id": message(TICK_TASK, CALL).replace(b'"id": "t"', b'"no": "t"'),
        "an expiry that is none": message(TICK_TASK, CALL, expires="tomorrow"),
        "a start in a thousand years": message(TICK_TASK, CALL, eta="3026-01-01T00:00:00"),
        "a start that is none": message(TICK_TASK, CALL, eta=[1]),
        "a limit that is none": message(TICK_TASK, CALL, timelimit="x"),
        "a pickle": message(DRAIN_TASK, picked, content_type="application/x-python-serialize"),
        "an unknown format": message(DRAIN_TASK, b"x", content_type="text/x-nothing"),
        "JSON that is none": message(DRAIN_TASK, b"{"),
        "arguments of another number": message(DRAIN_TASK, json.dumps([[1, 2, 3], {}, {}]).encode()),
        "arguments of another kind": message(CHORE_TASK, json.dumps([[{"a": 1}], {}, {}]).encode()),
        "callbacks of somebody": message(
            TICK_TASK, json.dumps([[], {}, {"callbacks": [{"task": "shop.send_mail"}], "chord": 7}]).encode()
        ),
    }


@pytest.fixture
def queue(chaos: ChaosProduction) -> Iterator[redis.Redis]:
    """The broker, past the proxy; all is healed afterwards."""
    with redis.Redis.from_url(chaos.servers.broker.url) as client:
        yield client
        client.delete(QUEUE)
    chaos.heal()


def test_foreign_messages_end_no_worker_and_hold_nothing_back(chaos: ChaosProduction, queue: redis.Redis) -> None:
    workers = [process for name, process in chaos.processes.items() if name.startswith("worker") and process.alive]
    wait_until(lambda: all(worker.workers() for worker in workers), what="each worker's parent has its child")
    pids = {name: process.acting_pid for name, process in chaos.processes.items() if process.alive}
    victim = chaos.folder / "made-by-a-pickle"
    for kind, raw in foreign(str(victim)).items():
        for number in range(TIMES):
            queue.lpush(QUEUE, raw.replace(b'"t"', f'"{kind}-{number}"'.encode()))
    wait_until(lambda: queue.llen(QUEUE) < TIMES, what="all were taken", timeout_s=20)

    workspaces = [chaos.register(delay="300ms") for _ in range(6)]  # more than one worker has slots
    for workspace in workspaces:
        chaos.write(workspace, "a")
    histories = [chaos.settled(workspace, restarts=1) for workspace in workspaces]

    assert {name: process.acting_pid for name, process in chaos.processes.items() if process.alive} == pids
    assert len({history.starts[0].worker for history in histories}) == 2, "a worker has stopped taking messages"
    wait_until(lambda: queue.hlen("unacked") < 5, what="no foreign message is kept")
    assert not victim.exists()


def test_an_hour_of_ticks_that_no_worker_took_delays_nothing(chaos: ChaosProduction, queue: redis.Redis) -> None:
    """Redis keeps what is too old, and no worker looks at a sender's clock: a tick too many has to be cheap."""
    for name in ("worker-1", "worker-2"):
        chaos.end(name)
    queue.lpush(QUEUE, *(message(TICK_TASK, CALL, tag=f"old-{number}") for number in range(3_600)))
    workspace = chaos.register()
    chaos.write(workspace, "a")
    for name in ("worker-1", "worker-2"):
        chaos.begin(name)

    chaos.settled(workspace, restarts=1, timeout_s=10)
