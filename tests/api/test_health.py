"""Alive, ready, and back by itself when the database is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.routes import health
from orchestrator.storage.migrate import upgrade
from tests.api.conftest import Api, served
from tests.conftest import PrivatePostgres
from tests.servers.process import free_port
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look anew each time, so that no test has to wait."""
    monkeypatch.setattr(health, "KEPT_S", 0.0)


def ready(api: Api) -> tuple[int, dict[str, Any]]:
    answer = api.http.get("/readyz")
    found: dict[str, Any] = answer.json()
    return answer.status_code, found


def broken(found: dict[str, Any]) -> list[str]:
    return [name for name, check in found["checks"].items() if not check["ok"]]


def test_ready_once_there_was_a_tick(any_api: Api) -> None:
    status, found = ready(any_api)
    assert (status, found["status"], broken(found)) == (200, "degraded", ["beat"])

    any_api.tick()
    wait_until(lambda: ready(any_api)[1]["status"] == "ready", what="the tick is seen")
    assert ready(any_api)[1]["checks"]["beat"]["age_s"] < 10


def test_late_beat_is_degraded() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)

    assert health.beat_check(now - timedelta(seconds=9), now, 1_000).ok
    assert not health.beat_check(now - timedelta(seconds=11), now, 1_000).ok
    assert health.beat_check(now - timedelta(seconds=49), now, 5_000).ok
    assert not health.beat_check(now - timedelta(seconds=51), now, 5_000).ok


def test_unreachable_broker_at_start_is_degraded_and_writes_are_stored(sqlite_url: str) -> None:
    with served(sqlite_url, broker_url=f"redis://127.0.0.1:{free_port()}/0") as api:
        api.put_workspace()
        api.tick()
        status, found = ready(api)

        assert (status, found["status"], broken(found)) == (200, "degraded", ["broker"])
        assert api.write()["decision"] == "opened_window"


@pytest.fixture
def unmigrated(tmp_path: Path) -> Iterator[Api]:
    """The API over a database in which there is nothing yet."""
    with served(f"sqlite:///{tmp_path / 'new.db'}", ready=False) as found:
        yield found


def test_database_behind_on_migrations_is_named_and_the_process_recovers(unmigrated: Api, tmp_path: Path) -> None:
    status, found = ready(unmigrated)
    assert (status, found["status"]) == (503, "unavailable")
    assert "migrations" in broken(found)
    assert "orchestrator migrate" in found["checks"]["migrations"]["detail"]

    for path in ("/v1/workspaces", "/v1/events", "/v1/restarts", "/v1/events/stream", "/v1/policies/default"):
        answer = unmigrated.http.get(path)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "migrations-pending")
    assert unmigrated.http.get("/livez").status_code == 200

    upgrade(f"sqlite:///{tmp_path / 'new.db'}")
    unmigrated.put_workspace()
    assert unmigrated.write()["decision"] == "opened_window"
    wait_until(lambda: ready(unmigrated)[0] == 200, what="readyz sees the migrations")


def test_database_of_another_version_is_not_served_from(sqlite_url: str, tmp_path: Path) -> None:
    """Its tables are all there: what a statement would do with them is not tried."""
    with closing(sqlite3.connect(tmp_path / "orchestrator.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of-the-future'")
        connection.commit()
    with served(sqlite_url, ready=False) as api:
        refused = api.http.put("/v1/workspaces/ws", json={"executor": "simulated"})
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "migrations-pending")
        assert "migrations" in broken(ready(api)[1])


def test_api_lives_through_a_stop_of_postgres(private_postgres: PrivatePostgres) -> None:
    with served(private_postgres.url) as api:
        api.put_workspace()
        first = api.write(source="s", id="1")
        private_postgres.server.stop()

        refused = api.http.post("/v1/workspaces/ws/writes", json={"path": "a.py", "source": "s", "id": "2"})
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "storage-unavailable")
        assert api.http.get(f"/v1/writes/{first['id']}").status_code == 503
        wait_until(lambda: ready(api)[0] == 503, what="readyz sees that the database is gone")
        assert "database" in broken(ready(api)[1])
        assert api.http.get("/livez").status_code == 200
        numbers = api.http.get("/metrics").text
        assert "orchestrator_up 0.0" in numbers
        assert "orchestrator_pending_writes" not in numbers, "no stale numbers"

        private_postgres.server.start()
        again = api.write(source="s", id="2")
        assert not again["replayed"]
        assert api.write(source="s", id="1")["id"] == first["id"]
        wait_until(lambda: ready(api)[0] == 200, what="readyz sees the database again")
        assert "orchestrator_up 1.0" in api.http.get("/metrics").text


def test_sealing_that_was_declined_is_ready_and_not_late(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of no time at all, so that the same log is late where nobody has declined."""
    monkeypatch.setattr(health, "SEAL_STALE_S", 0.0)
    for seal_key, status, late in (("off", "ready", False), (None, "degraded", True)):
        with served(sqlite_url, seal_key=seal_key) as api:
            api.put_workspace()
            api.tick()
            found = ready(api)[1]
            assert (found["status"], broken(found)) == (status, ["seal"] if late else [])
            word = "ORCHESTRATOR_SEAL_KEY=off" if late else "declined: ORCHESTRATOR_SEAL_KEY is off"
            assert word in found["checks"]["seal"]["detail"]
            scraped = api.http.get("/metrics").text
            [age] = [
                line for line in scraped.splitlines() if line.startswith("orchestrator_oldest_unsealed_age_seconds")
            ]
            assert (float(age.split()[1]) > 0) is late
