"""A workspace that nobody can carry out: as its state, in lists, in readiness and in the metrics."""

from __future__ import annotations

import pytest

from orchestrator.api.routes import health
from tests.api.conftest import Api
from tests.api.test_metrics import scrape
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look anew each time, so that no test has to wait."""
    monkeypatch.setattr(health, "KEPT_S", 0.0)


def test_a_workspace_that_nobody_serves_is_shown_counted_and_explained(any_api: Api) -> None:
    api = any_api
    api.put_workspace("there", target={"pool": "host-2"})
    write = api.write("there")
    api.tick()
    store = api.services.store
    with store.read() as reader:
        now = reader.clock()
    with store.write() as tx:
        tx.save_away([(("simulated", "host-2"), now, 1)], [])

    assert api.get("/v1/workspaces/there")["state"] == "unclaimable"
    assert [item["id"] for item in api.get("/v1/workspaces", state="unclaimable")["items"]] == ["there"]
    assert api.get("/v1/workspaces", state="queued")["items"] == []
    assert scrape(api)["orchestrator_unclaimable_workspaces"] == 1
    assert "no worker serves executor simulated in pool host-2" in api.get(f"/v1/writes/{write['id']}")["explanation"]

    def claims() -> str:
        check: dict[str, str] = api.http.get("/readyz").json()["checks"]["claims"]
        return check["detail"]

    wait_until(lambda: "executor simulated in pool host-2" in claims(), what="readiness names what is missing")
