"""The tests' own RabbitMQ: it answers, stops, dies, freezes and comes back, and leaves nothing behind."""

from __future__ import annotations

import psutil

from tests.servers.brokers import new_broker
from tests.servers.process import LOOPBACK
from tests.servers.rabbitmq import RabbitServer
from workers.app import create_celery
from workers.doorbell import CeleryDoorbell


def test_killed_it_comes_back_on_its_port_without_its_messages(rabbit: RabbitServer) -> None:
    port = rabbit.port
    CeleryDoorbell(create_celery(rabbit.url, tick_s=1, slots=1)).ring("ws")
    rabbit.kill()
    assert not rabbit.answers()
    rabbit.start()
    assert rabbit.port == port
    assert rabbit.waiting() == 0, "a wake-up was kept on disk"


def test_frozen_it_answers_nobody(rabbit: RabbitServer) -> None:
    rabbit.pause()
    assert not rabbit.answers()
    rabbit.resume()
    assert rabbit.answers()


def test_flush_loses_everything(rabbit: RabbitServer) -> None:
    CeleryDoorbell(create_celery(rabbit.url, tick_s=1, slots=1)).ring("ws")
    rabbit.flush()
    assert rabbit.waiting() == 0


def test_listens_on_loopback_only_and_leaves_nothing_behind() -> None:
    with new_broker(RabbitServer.name) as server:
        assert isinstance(server, RabbitServer)
        node = psutil.Process(server.pid)
        listening = {each.laddr.ip for each in node.net_connections("inet") if each.status == psutil.CONN_LISTEN}
        processes = [node, *node.children(recursive=True), *server.port_mappers()]
        folder = server.folder
    assert listening == {LOOPBACK}
    assert len(processes) > 1
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not folder.exists()
