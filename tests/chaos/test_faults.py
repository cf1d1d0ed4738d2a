"""Killed, frozen, cut off, full and told twice: the processes of production lose and double nothing, and recover."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx2
import psutil
import pytest

from orchestrator.domain import events as ev
from tests.chaos.machine_faults import run_older
from tests.chaos.production import ChaosProduction
from tests.chaos.proxy import Mode
from tests.chaos.steady_writer import check_accepted, pids_of, writing_all_the_while
from tests.previous_version import NoHistory, check_out_previous
from tests.system.client import Answer
from tests.system.deployment import LEASE_S, TICK_S
from tests.system.doubled_bells import doubled_bells
from tests.system.history import History
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

SLACK_S = 3.0
"""What a busy machine may add to a bound."""

PROMPT_S = 1.5
"""Two writes on a busy machine; whoever waits for a broker that is away waits for seconds."""

NotRun = Callable[[str], None]


def test_a_worker_killed_in_mid_restart_goes_on_elsewhere_within_lease_and_tick(production: ChaosProduction) -> None:
    workspace = production.register(delay="60s")
    production.write(workspace, "a", "b")
    victim = production.await_running(workspace)
    production.change(workspace)

    worker_of(production, victim.start).kill()
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


@pytest.mark.parametrize("where", ["act.begin", "act.end"])
def test_a_worker_frozen_past_its_lease_wakes_up_changes_nothing_and_is_recorded(
    production: ChaosProduction, where: str
) -> None:
    """Frozen between claim and act, or between act and record: only the fence tells it from a live one."""
    workspace = production.register(delay="20ms")
    for name in ("worker-1", "worker-2"):
        production.end(name)
    zombie = production.begin("worker-1", f"{where}:1:stop")
    production.write(workspace, "a")
    zombie.await_stopped()
    production.begin("worker-2")
    before = _at_rest(production, workspace)
    state, acts = production.state(workspace), production.acts(workspace)

    zombie.thaw()
    wait_until(lambda: production.history(workspace).of(ev.LateResultRejected), what="the late result is recorded")

    history, after = production.history(workspace), production.state(workspace)
    (late,) = history.of(ev.LateResultRejected)
    assert (late.fence, late.current_fence) == (1, 2)
    assert [cycle.end for cycle in history.cycles] == [cycle.end for cycle in before.cycles]
    assert [cycle.succeeded for cycle in history.cycles] == [False, True]
    assert (after.settled_to, after.fence, after.last_end_at) == (state.settled_to, state.fence, state.last_end_at)
    assert production.acts(workspace) == acts, "the zombie acted"
    assert [act.fence for act in acts] == ([2] if where == "act.begin" else [1, 2])


def test_a_flushed_redis_loses_nothing(production: ChaosProduction) -> None:
    workspaces = [production.register(policy={"quiet": f"{100 + 60 * number}ms"}) for number in range(6)]
    for workspace in workspaces:
        production.write(workspace, "a", "b")

    def flushed_until_covered() -> bool:
        production.servers.broker.flush()
        return not any(production.state(workspace).pending for workspace in workspaces)

    wait_until(flushed_until_covered, what="all are covered, whatever was flushed", every_s=0.05, timeout_s=30)

    for workspace in workspaces:
        production.settled(workspace, restarts=1)


@pytest.mark.parametrize("fault", ["stopped", "frozen", "cut off"])
def test_a_redis_that_is_away_delays_restarts_and_nothing_else(production: ChaosProduction, fault: str) -> None:
    pids = pids_of(production)
    running_one, workspace = production.register(delay="1s"), production.register()
    production.write(running_one, "a")
    production.await_running(running_one)

    with _redis_away(production, fault):
        began_s = time.monotonic()
        answers = production.write(workspace, "b", "c")
        assert time.monotonic() - began_s < PROMPT_S, "the API must not wait for the broker"
        assert production.client.http.get("/livez").status_code == 200
        wait_until(lambda: "broker" in _degraded_by(production), what="/readyz says so", every_s=0.1)
        meanwhile = production.settled(running_one, restarts=1)

    history = production.settled(workspace, restarts=1, timeout_s=30)
    assert meanwhile.cycles[0].succeeded
    assert all(len(history.covering(answer["position"])) == 1 for answer in answers)
    assert pids_of(production) == pids, "a process did not live through it"


def test_every_message_sent_twice_doubles_nothing(production: ChaosProduction) -> None:
    production.run("beat-2", "beat")
    workspaces = [production.register(delay="100ms", policy={"min_interval": "400ms"}) for _ in range(4)]
    with doubled_bells(production.servers.broker.url, workspaces) as rung:
        for round_ in (1, 2):
            for workspace in workspaces:
                production.write(workspace, "a", "b", "c")
            for workspace in workspaces:
                production.settled(workspace, restarts=round_)
    assert rung.count > 4 * len(workspaces), "the bells were not doubled"
    production.processes.pop("beat-2").kill()


def test_a_postgres_stopped_in_mid_ingest_is_503_meanwhile_and_everything_recovers_by_itself(
    production: ChaosProduction,
) -> None:
    pids = pids_of(production)
    workspace, running_one = production.register(policy={"quiet": "1s"}), production.register(delay="1s")
    production.write(running_one, "a")
    production.await_running(running_one)

    with writing_all_the_while(production, workspace) as answered:
        wait_until(lambda: len(answered.accepted) > 20, what="writes are accepted")
        production.servers.postgres.stop_immediately()
        wait_until(lambda: answered.refused, what="a write is refused")
        assert production.client.http.get("/livez").status_code == 200
        wait_until(lambda: not production.ready(), what="/readyz says so")  # it keeps an answer for 2 s
        production.servers.postgres.start()
        before = len(answered.accepted)
        wait_until(lambda: len(answered.accepted) > before, what="writes are accepted again", timeout_s=20)

    history = check_accepted(production, workspace, answered)
    assert history.pending == []
    production.settled(running_one, restarts=1)
    assert pids_of(production) == pids, "a process did not live through it"


def test_a_full_disk_is_503_and_takes_nothing_that_was_acknowledged(
    production: ChaosProduction, not_run: NotRun
) -> None:
    disk = production.servers.disk
    if disk is None:
        not_run("a full disk: this user may mount no tmpfs")
        return
    pids, workspace = pids_of(production), production.register(policy={"quiet": "1s"})

    def full() -> bool:
        disk.fill()
        return bool(answered.refused)

    with writing_all_the_while(production, workspace) as answered:
        wait_until(lambda: len(answered.accepted) > 5, what="writes are accepted")
        wait_until(full, what="a write is refused", timeout_s=30)
        disk.free()
        production.heal()
        before = len(answered.accepted)
        wait_until(lambda: len(answered.accepted) > before, what="writes are accepted again", timeout_s=20)

    assert check_accepted(production, workspace, answered).pending == []
    assert pids_of(production) == pids, "a process did not live through it"


def test_an_api_killed_after_the_commit_and_before_the_answer_stores_one_event(production: ChaosProduction) -> None:
    workspace = production.register()
    body = {"path": "a", "id": "save-1", "source": "editor"}
    headers = {"Idempotency-Key": "save-1"}
    production.end("api")
    production.begin("api", "write.committed/FileWritten").url()

    with pytest.raises(httpx2.TransportError):
        _post_write(production, workspace, body, headers)
    production.await_crash("api", "write.committed/FileWritten")
    (stored,) = production.history(workspace).writes
    production.begin("api").url()

    _check_replays(production, workspace, stored, body, headers)


def test_a_commit_whose_answer_is_lost_on_the_way_from_postgres_stores_one_event(production: ChaosProduction) -> None:
    """The ambiguous commit: 503, the write is there all the same, and the same id finds it."""
    workspace = production.register()
    body, headers = {"path": "a", "id": "save-2", "source": "editor"}, {"Idempotency-Key": "save-2"}
    for name in ("worker-1", "worker-2"):  # they commit too
        production.end(name)

    production.servers.to_postgres.lose_next_commit()
    answer = _post_write(production, workspace, body, headers)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
    (stored,) = production.history(workspace).writes
    production.begin_missing()

    _check_replays(production, workspace, stored, body, headers)


def test_a_rolling_upgrade_an_older_worker_beside_todays(
    production: ChaosProduction, not_run: NotRun, tmp_path: Path
) -> None:
    """The version before the newest migration serves what today's API stores, on today's schema."""
    try:
        code = check_out_previous(tmp_path)
    except NoHistory as reason:
        not_run(f"an older worker beside today's: {reason}")
        return
    for name in ("worker-1", "worker-2"):
        production.end(name)
    older = run_older(production, "worker-1", code)
    workspace = production.register()
    production.write(workspace, "a", "b")
    by_older = production.settled(workspace, restarts=1, timeout_s=30)
    parent_and_worker = [older.pid, *(child.pid for child in psutil.Process(older.pid).children())]
    production.begin("worker-2")
    production.write(workspace, "c")
    production.settled(workspace, restarts=2)
    older.kill()
    production.begin("worker-1")
    production.write(workspace, "d")
    history = production.settled(workspace, restarts=3)

    assert int(by_older.starts[0].worker.split(":")[1]) in parent_and_worker
    assert history.pending == []


def _at_rest(production: ChaosProduction, workspace: str) -> History:
    wait_until(lambda: not production.state(workspace).pending, what=f"{workspace} is covered", timeout_s=30)
    wait_until(lambda: production.state(workspace).restart is None, what=f"{workspace} is at rest")
    return production.history(workspace)


def _degraded_by(production: ChaosProduction) -> list[str]:
    """Return what /readyz finds wrong while it still says that writes are stored."""
    answer = production.client.http.get("/readyz")
    assert answer.status_code == 200, answer.text
    return [name for name, check in answer.json()["checks"].items() if not check["ok"]]


def worker_of(production: ChaosProduction, cycle: ev.CycleStarted) -> OrchestratorProcess:
    """The process that runs a cycle."""
    pid = int(cycle.worker.split(":")[1])
    return next(process for process in production.processes.values() if process.acting_pid == pid)


@contextmanager
def _redis_away(production: ChaosProduction, fault: str) -> Iterator[None]:
    redis, proxy = production.servers.broker, production.servers.to_broker
    if fault == "stopped":
        redis.stop()
        yield
        redis.start()
    elif fault == "frozen":
        redis.pause()
        yield
        redis.resume()
    else:
        proxy.mode = Mode.REFUSE
        proxy.cut()
        yield
        proxy.mode = Mode.PASS


def _post_write(production: ChaosProduction, workspace: str, body: Answer, headers: dict[str, str]) -> httpx2.Response:
    url = f"{production.client.http.base_url}/v1/workspaces/{workspace}/writes"
    return httpx2.post(url, json=body, headers=headers, timeout=20)


def _check_replays(
    production: ChaosProduction, workspace: str, stored: ev.Recorded, body: Answer, headers: dict[str, str]
) -> None:
    """The same key, or the same id alone, gives what is stored, and stores nothing more."""
    for answer in (_post_write(production, workspace, body, more) for more in (headers, {})):
        assert answer.status_code == 202, answer.text
        assert (answer.json()["id"], answer.json()["position"]) == (stored.id, stored.position)
        assert answer.json()["replayed"] is True
    history = production.settled(workspace, restarts=1)
    assert [write.id for write in history.writes] == [stored.id]
