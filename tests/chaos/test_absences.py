"""What is missing for a while: an API before its commit, every beat, and in the end all processes at once."""

from __future__ import annotations

import signal
from datetime import timedelta

import httpx2
import pytest

from orchestrator.api.routes import health
from tests.api.conftest import served
from tests.chaos.judge import judge
from tests.chaos.production import ARGUMENTS, ChaosProduction
from tests.chaos.writers import Writers
from tests.servers.postgres import APP, as_login
from tests.system.deployment import STOPS_WITHIN_S, TICK_S
from tests.waiting import wait_until

BUSY_S = 3.0
"""What a busy machine may add to a tick."""


def test_an_api_killed_before_the_commit_has_stored_nothing_and_the_retry_stores_one(
    production: ChaosProduction,
) -> None:
    """F1: the client has no answer, there is no event, and the same key is a first one."""
    workspace = production.register()
    body, headers = {"path": "a", "id": "save-1", "source": workspace}, {"Idempotency-Key": workspace}
    url = f"{production.client.http.base_url}/v1/workspaces/{workspace}/writes"
    production.end("api")
    production.begin("api", "write.commit/FileWritten").url()

    with pytest.raises(httpx2.TransportError):
        httpx2.post(url, json=body, headers=headers, timeout=20)
    production.await_crash("api", "write.commit/FileWritten")
    before = production.history(workspace).writes
    production.begin("api").url()
    first, again = (httpx2.post(url, json=body, headers=headers, timeout=20) for _ in range(2))

    assert before == []
    assert [(answer.status_code, answer.json()["replayed"]) for answer in (first, again)] == [(202, False), (202, True)]
    (stored,) = production.settled(workspace, restarts=1).writes
    assert {answer.json()["id"] for answer in (first, again)} == {stored.id}


def test_without_any_beat_writes_are_stored_and_readyz_says_so_and_its_return_restarts(
    production: ChaosProduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F12. The API that is asked runs here, so that it need not be asked for the ten seconds after which it is sure."""
    monkeypatch.setattr(health, "BEAT_STALE_S", 1.0)
    monkeypatch.setattr(health, "KEPT_S", 0.0)
    workspaces = [production.register() for _ in range(2)]
    production.end("beat")
    answers = [production.write(workspace, "a", "b")[-1] for workspace in workspaces]

    url, broker = as_login(production.direct_url, APP), production.servers.broker.url
    with served(url, broker_url=broker, tick="100ms", ready=False) as api:  # and records no floor of its own
        found = wait_until(lambda: late_beat(api.get("/readyz")), what="/readyz says that there is no beat")
        assert api.http.get("/readyz").status_code == 200, "writes are stored: it is degraded, not away"
    assert [production.history(workspace).queued for workspace in workspaces] == [[], []]
    production.begin("beat")
    back_at = production.now()

    for workspace, answer in zip(workspaces, answers, strict=True):
        history = production.settled(workspace, restarts=1)
        assert len(history.covering(answer["position"])) == 1
        assert history.starts[0].started_at - back_at < timedelta(seconds=TICK_S + BUSY_S)
    assert "are beat and a worker running?" in found


def late_beat(ready: dict[str, object]) -> str | None:
    """Return what is said of the beat where it is late."""
    checks = ready["checks"]
    assert isinstance(checks, dict)
    return None if checks["beat"]["ok"] or ready["status"] != "degraded" else str(checks["beat"]["detail"])


def test_all_told_to_end_under_load_end_in_order_and_leave_no_cycle_to_its_lease(
    production: ChaosProduction,
) -> None:
    """F38. No new claim; what runs ends within the grace. (What does not is cancelled: ``tests/system/test_up.py``.)"""
    slow, workspaces = production.register(delay="1500ms"), [production.register(delay="50ms") for _ in range(4)]
    production.write(slow, "a")
    running = production.await_running(slow).start
    writers = Writers(production.url, workspaces, seed=38, name="stops")

    with writers.at_work():
        wait_until(lambda: production.history(workspaces[0]).starts, what="cycles come and go")
        for name in ARGUMENTS:
            production.processes[name].signal(signal.SIGTERM)
        codes = [production.processes[name].wait(STOPS_WITHIN_S) for name in ARGUMENTS]
        ended_of_running = production.history(slow).cycles[0]
        left = [workspace for workspace in workspaces if production.history(workspace).running is not None]
        production.begin_missing()
        production.await_serving()
        healed_at = production.now()

    assert codes == [0] * len(ARGUMENTS)
    assert (ended_of_running.start, ended_of_running.succeeded) == (running, True)
    assert left == [], "a cycle was left to its lease"
    verdict = judge(production, workspaces, writers.operations, healed_at=healed_at)
    assert verdict.problems == []
    assert verdict.acknowledged > 10
