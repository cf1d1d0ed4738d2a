"""A program that dies again and again: a state of its workspace, a number, and the writes that came before it began."""

from __future__ import annotations

from orchestrator.domain.events import ProcessExited
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.service.append import Author
from tests.api.conftest import Api
from tests.api.test_metrics import scrape


def test_three_deaths_in_a_row_are_said_until_a_restart(any_api: Api) -> None:
    api = any_api
    program = Registration(
        fleet="default", labels={}, executor="process", target={"argv": ["x"], "pool": "up-x"}, policy=PolicyPatch()
    )
    api.put_workspace()
    api.write(path="settings.toml")
    api.restart_all()
    api.services.operator.register("ws", program, Author(actor="test"))
    (restart,) = api.get("/v1/restarts")["items"]

    for pause_ms in (1_000, 2_000):
        _die(api, pause_ms)
    assert api.get("/v1/workspaces/ws")["crash_looping"] is False
    assert scrape(api)["orchestrator_crash_looping_workspaces"] == 0
    _die(api, 4_000)

    seen = api.get("/v1/workspaces/ws")
    assert seen["crash_looping"] is True
    loop = seen["crash_loop"]
    assert (loop["deaths"], loop["exit_code"], loop["restart"]) == (3, 7, restart["id"])
    assert loop["files"] == ["settings.toml"]
    assert [item["crash_looping"] for item in api.get("/v1/workspaces")["items"]] == [True]
    assert scrape(api)["orchestrator_crash_looping_workspaces"] == 1
    assert api.get("/v1/workspaces/ws", at=restart["queued_at"])["crash_looping"] is False


def _die(api: Api, pause_ms: int) -> None:
    api.services.operator.report_exit("ws", ProcessExited(exit_code=7, signal=None, respawn_after_ms=pause_ms))
