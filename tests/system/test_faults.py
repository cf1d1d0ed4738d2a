"""Killed, frozen, cut off and told twice: separate processes on PostgreSQL and Redis lose and double nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from orchestrator.domain import events as ev
from tests.servers.postgres import PostgresServer, new_postgres
from tests.servers.programs import find_redis
from tests.servers.redis import RedisServer
from tests.system.acts import nobody_writes
from tests.system.client import Answer
from tests.system.deployment import LEASE_S, TICK_S, Production, running
from tests.system.doubled_bells import doubled_bells
from tests.system.processes import OrchestratorProcess
from tests.system.swallowing_proxy import swallowing_proxy
from tests.waiting import wait_until

SLACK_S = 3.0
"""What a busy machine may add to a bound."""


class FaultyProduction(Production):
    """With servers of its own, to stop, kill and flush."""

    def __init__(self, folder: Path, postgres: PostgresServer, redis: RedisServer) -> None:
        super().__init__(folder, database_url=postgres.url(postgres.create_database()), broker_url=redis.url)
        self.postgres, self.redis = postgres, redis

    def worker_of(self, cycle: ev.CycleStarted) -> OrchestratorProcess:
        """The process that runs a cycle."""
        pid = int(cycle.worker.rpartition(":")[2])
        return next(process for process in self.processes.values() if process.pid == pid)

    @contextmanager
    def frozen(self, cycle: ev.CycleStarted) -> Iterator[None]:
        """Freeze the process that runs a cycle, for a while."""
        worker = self.worker_of(cycle)
        with nobody_writes(self.ledger):
            worker.freeze()
        try:
            yield
        finally:
            worker.thaw()

    def pids(self) -> dict[str, int]:
        """What runs now, to show that nothing was restarted."""
        return {name: process.pid for name, process in self.processes.items() if process.alive}


@pytest.fixture(scope="module")
def production(system_folder: Path, postgres_programs: Path) -> Iterator[FaultyProduction]:
    folder = system_folder / "faults"
    (folder / "redis").mkdir(parents=True)
    redis = RedisServer(find_redis(os.environ), folder / "redis")
    redis.start()
    try:
        with new_postgres(postgres_programs, durable=True) as postgres:
            deployment = FaultyProduction(folder, postgres, redis)
            with running(deployment):
                yield deployment
    finally:
        redis.stop()


def test_a_worker_killed_in_mid_restart_goes_on_elsewhere_within_lease_and_tick(production: FaultyProduction) -> None:
    workspace = production.register(delay="60s")
    production.write(workspace, "a", "b")
    victim = production.await_running(workspace)
    production.change(workspace)
    killed = production.worker_of(victim.start)

    killed.kill()
    killed_at = production.now()

    history = production.settled(workspace, restarts=1)
    first, second = history.cycles
    (abandoned,) = history.recorded(ev.CycleAbandoned)
    assert isinstance(first.end, ev.CycleAbandoned)
    assert first.end.reason is ev.Abandonment.LEASE_EXPIRED
    assert abandoned.recorded_at - killed_at < timedelta(seconds=LEASE_S + TICK_S + SLACK_S)
    assert second.start.started_at - abandoned.recorded_at < timedelta(seconds=TICK_S + SLACK_S), "not at once"
    assert (second.start.restart, second.start.attempt) == (first.start.restart, 2)
    assert second.start.fence > first.start.fence
    assert second.start.worker != first.start.worker
    assert second.succeeded
    production.run(killed.name, "worker")


def test_a_worker_frozen_past_its_lease_wakes_up_changes_nothing_and_is_recorded(production: FaultyProduction) -> None:
    workspace = production.register(delay="500ms")
    production.write(workspace, "a")
    frozen = production.await_running(workspace)
    with production.frozen(frozen.start):
        before = production.settled(workspace, restarts=1, timeout_s=30)
        state = production.state(workspace)

    wait_until(lambda: production.history(workspace).of(ev.LateResultRejected), what="the zombie's result is recorded")
    history = production.settled(workspace, restarts=1)
    (late,) = history.of(ev.LateResultRejected)
    assert (late.cycle, late.fence, late.current_fence) == (frozen.start.cycle, 1, 2)
    assert [cycle.end for cycle in history.cycles] == [cycle.end for cycle in before.cycles]
    assert [cycle.succeeded for cycle in history.cycles] == [False, True]
    after = production.state(workspace)
    assert (after.settled_to, after.fence, after.last_end_at) == (state.settled_to, state.fence, state.last_end_at)


def test_a_flushed_redis_loses_nothing(production: FaultyProduction) -> None:
    workspaces = [production.register(policy={"quiet": f"{100 + 60 * number}ms"}) for number in range(6)]
    for workspace in workspaces:
        production.write(workspace, "a", "b")

    def flushed_until_covered() -> bool:
        production.redis.flush()
        return not any(production.state(workspace).pending for workspace in workspaces)

    wait_until(flushed_until_covered, what="all are covered, whatever was flushed", every_s=0.05, timeout_s=30)

    for workspace in workspaces:
        production.settled(workspace, restarts=1)


def test_a_stopped_redis_delays_restarts_and_nothing_else(production: FaultyProduction) -> None:
    pids = production.pids()
    running_one, workspace = production.register(delay="2s"), production.register()
    production.write(running_one, "a")
    production.await_running(running_one)

    production.redis.stop()
    answers = production.write(workspace, "b", "c")
    assert production.client.http.get("/livez").status_code == 200
    meanwhile = production.settled(running_one, restarts=1)
    production.redis.start()

    history = production.settled(workspace, restarts=1, timeout_s=30)
    assert meanwhile.cycles[0].succeeded
    assert all(len(history.covering(answer["position"])) == 1 for answer in answers)
    assert production.pids() == pids, "a process did not live through it"


def test_every_message_sent_twice_doubles_nothing(production: FaultyProduction) -> None:
    production.run("beat-2", "beat")
    workspaces = [production.register(delay="100ms", policy={"min_interval": "400ms"}) for _ in range(4)]
    with doubled_bells(production.redis.url, workspaces) as rung:
        for round_ in (1, 2):
            for workspace in workspaces:
                production.write(workspace, "a", "b", "c")
            for workspace in workspaces:
                production.settled(workspace, restarts=round_)
    assert rung.count > 4 * len(workspaces), "the bells were not doubled"
    production.processes.pop("beat-2").kill()


def test_a_killed_postgres_is_503_meanwhile_and_everything_recovers_by_itself(production: FaultyProduction) -> None:
    pids = production.pids()
    workspace, running_one = production.register(policy={"quiet": "1s"}), production.register(delay="1s")
    production.write(running_one, "a")
    production.await_running(running_one)

    with _writing_all_the_while(production, workspace) as answered:
        wait_until(lambda: len(answered.accepted) > 20, what="writes are accepted")
        production.postgres.kill()
        wait_until(lambda: answered.refused, what="a write is refused")
        assert production.client.http.get("/livez").status_code == 200
        assert production.client.http.get("/readyz").status_code == 503
        production.postgres.start()
        before = len(answered.accepted)
        wait_until(lambda: len(answered.accepted) > before, what="writes are accepted again", timeout_s=20)

    wait_until(lambda: not production.state(workspace).pending, what="everything is covered", timeout_s=30)
    history = production.settled(workspace, restarts=len(production.history(workspace).queued))
    assert {response.status_code for response in answered.refused} == {503}
    assert all("retry-after" in response.headers for response in answered.refused)
    assert {answer["id"] for answer in answered.accepted} <= {write.id for write in history.writes}
    assert history.pending == []
    production.settled(running_one, restarts=1)
    assert production.pids() == pids, "a process did not live through it"


def test_an_api_killed_after_the_commit_and_before_the_answer_stores_one_event(production: FaultyProduction) -> None:
    workspace = production.register()
    body = {"path": "a", "id": "save-1", "source": "editor"}
    headers = {"Idempotency-Key": "save-1"}
    call = f"/v1/workspaces/{workspace}/writes"

    with swallowing_proxy(production.url) as proxy, ThreadPoolExecutor(1) as editor:
        lost = editor.submit(httpx2.post, proxy.url + call, json=body, headers=headers, timeout=20)
        assert proxy.answered.wait(10)
        production.processes["api"].kill()
        proxy.hang_up()
        with pytest.raises(httpx2.TransportError):
            lost.result(10)
    (stored,) = production.history(workspace).writes
    production.start_api()

    again = production.client.http.post(call, json=body, headers=headers)
    without_key = production.client.http.post(call, json=body)

    for answer in (again, without_key):
        assert answer.status_code == 202
        assert (answer.json()["id"], answer.json()["position"]) == (stored.id, stored.position)
        assert answer.json()["replayed"] is True
    history = production.settled(workspace, restarts=1)
    assert [write.id for write in history.writes] == [stored.id]


class _Answered:
    def __init__(self) -> None:
        self.accepted: list[Answer] = []
        self.refused: list[httpx2.Response] = []


@contextmanager
def _writing_all_the_while(production: FaultyProduction, workspace: str) -> Iterator[_Answered]:
    """Write one after the other in a thread, and keep every answer."""
    answered, over = _Answered(), threading.Event()

    def write() -> None:
        number = 0
        while not over.wait(0.01):
            number += 1
            body = {"path": f"f{number}", "id": f"{workspace}-{number}"}
            response = production.client.http.post(f"/v1/workspaces/{workspace}/writes", json=body)
            if response.status_code == 202:
                answered.accepted.append(response.json())
            else:
                answered.refused.append(response)

    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(write)
        try:
            yield answered
        finally:
            over.set()
            writing.result(30)
