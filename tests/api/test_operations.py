"""What people do to workspaces, and the policies they set."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.domain.encoding import format_instant
from tests.api.conftest import Api


def test_put_registers_then_changes(any_api: Api) -> None:
    target = {"delay": "90s"}
    fields = {"executor": "simulated", "fleet": "blue", "labels": {"team": "a"}, "target": target}
    new = any_api.http.put("/v1/workspaces/w1", json={**fields, "policy": {"quiet": 2, "max_wait": "90s"}})
    same = any_api.http.put("/v1/workspaces/w1", json={**fields, "policy": {"quiet": "2s", "max_wait": "1m30s"}})
    changed = any_api.http.put("/v1/workspaces/w1", json={"executor": "simulated"})

    assert [answer.status_code for answer in (new, same, changed)] == [201, 200, 200]
    assert same.json()["version"] == new.json()["version"]
    assert new.json()["policy"] == {"quiet": "2s", "max_wait": "1m30s"}
    assert new.json()["target"]["delay"] == "1m30s"
    assert new.json()["policy_in_force"]["min_interval"] == "0s"
    assert changed.json()["fleet"] == "default"
    assert changed.json()["labels"] == {}


def test_a_target_names_its_pool_whatever_its_executor_is(any_api: Api) -> None:
    fields = {"executor": "simulated", "target": {"delay": "1s", "pool": "host-2"}}
    assert any_api.http.put("/v1/workspaces/w1", json=fields).json()["target"]["pool"] == "host-2"
    assert "pool" not in any_api.http.put("/v1/workspaces/w1", json={"executor": "simulated"}).json()["target"]


def test_workspace_tells_its_state(api: Api) -> None:
    assert api.get("/v1/workspaces/ws")["state"] == "idle"

    api.write()
    waiting = api.get("/v1/workspaces/ws")
    assert (waiting["state"], waiting["pending_writes"]) == ("window_open", 1)
    assert waiting["due_at"] is not None

    api.tick()
    queued = api.get("/v1/workspaces/ws")
    assert queued["state"] == "queued"
    assert queued["restart"]["id"].startswith("rst_")

    api.restart_all()
    after = api.get("/v1/workspaces/ws")
    assert (after["state"], after["pending_writes"]) == ("idle", 0)
    assert after["last_cycle"]["id"].startswith("cyc_")


def test_removal_waives_and_says_so(any_api: Api) -> None:
    write = any_api.write()
    answer = any_api.http.delete("/v1/workspaces/ws", params={"reason": "moved away"})

    assert answer.json()["waived"] == {"writes": 1, "from_position": 1, "to_position": write["position"]}
    assert any_api.get(f"/v1/writes/{write['id']}")["status"] == "waived"
    assert any_api.get("/v1/workspaces/ws")["state"] == "removed"
    assert any_api.get("/v1/workspaces")["items"] == []
    assert [item["id"] for item in any_api.get("/v1/workspaces", state="removed")["items"]] == ["ws"]
    assert any_api.http.post("/v1/workspaces/ws/writes", json={"path": "a"}).status_code == 404
    assert any_api.http.delete("/v1/workspaces/ws").status_code == 404

    any_api.put_workspace()
    assert any_api.http.delete("/v1/workspaces/ws").json()["waived"] is None


def test_requests_are_served_by_a_restart(api: Api) -> None:
    for body in ({"reason": "new certificate"}, {"reason": "secret changed", "trigger": "mutation"}):
        asked = api.http.post("/v1/workspaces/ws/restarts", json=body)
        assert asked.status_code == 202
        api.restart_all()

        trigger = body.get("trigger", "manual")
        fate = api.get(asked.headers["location"])
        assert (fate["type"], fate["status"], fate["trigger"]) == ("RestartRequested", "covered", trigger)
        assert api.get(f"/v1/restarts/{fate['restart']}")["cause"] == trigger


def test_probe_is_requested_then_suppressed_then_ignored(any_api: Api) -> None:
    def probe(healthy: bool) -> dict[str, object]:
        answer = any_api.http.post("/v1/workspaces/ws/probes", json={"healthy": healthy, "detail": "timeout"})
        assert answer.status_code == 202
        found: dict[str, object] = answer.json()
        return found

    assert probe(False)["decision"] == "requested"
    pending = probe(False)
    assert (pending["decision"], pending["reason"]) == ("suppressed", "restart_pending")
    any_api.restart_all()
    settling = probe(False)
    assert (settling["decision"], settling["reason"]) == ("suppressed", "settling")
    assert probe(True) == {"decision": "ignored", "replayed": False}


def test_hold_keeps_and_release_gives_one_restart(api: Api) -> None:
    held = api.http.post("/v1/workspaces/ws/hold", json={"reason": "deploying"}).json()
    again = api.http.post("/v1/workspaces/ws/hold", json={"reason": "deploying"}).json()
    decisions = [api.write(path=name)["decision"] for name in ("a", "b")]
    api.restart_all()

    assert (held["state"], held["changed"], again["changed"]) == ("held", True, False)
    assert decisions == ["held", "held"]
    assert api.get("/v1/workspaces/ws")["hold"] == {"reason": "deploying", "until": None}
    assert api.get("/v1/restarts")["items"] == []

    released = api.http.post("/v1/workspaces/ws/release", json={"reason": "done"})
    api.restart_all()

    assert released.json()["state"] == "window_open"
    assert [restart["writes"] for restart in api.get("/v1/restarts")["items"]] == [2]

    with api.services.store.read() as reader:
        until = reader.clock() + timedelta(hours=1)
    api.http.post("/v1/workspaces/ws/hold", json={"reason": "night", "until": until.isoformat()})

    assert api.get("/v1/workspaces/ws")["hold"]["until"] == format_instant(until)


def test_cancel_waives_a_queued_restart_and_refuses_a_settled_one(any_api: Api) -> None:
    write = any_api.write()
    any_api.tick()
    restart = any_api.get("/v1/restarts")["items"][0]["id"]
    key = {"Idempotency-Key": "cancel"}
    cancelled = any_api.http.post(f"/v1/restarts/{restart}/cancel", json={"reason": "not now"}, headers=key)
    replayed = any_api.http.post(f"/v1/restarts/{restart}/cancel", json={"reason": "not now"}, headers=key)
    again = any_api.http.post(f"/v1/restarts/{restart}/cancel", json={"reason": "not now"})

    assert cancelled.json() == {"restart": restart, "workspace": "ws", "changed": True, "replayed": False}
    assert replayed.json() == cancelled.json() | {"replayed": True}
    assert again.status_code == 409
    assert any_api.get(f"/v1/writes/{write['id']}")["waived_reason"] == "operator"


def test_policies_are_guarded_by_their_version(api: Api) -> None:
    empty = api.http.get("/v1/policies/fleets/blue")
    assert (empty.json()["version"], empty.json()["policy"], empty.headers["etag"]) == (0, {}, '"0"')

    first = api.http.put("/v1/policies/fleets/blue", json={"quiet": "3s"}, headers={"If-Match": '"0"'})
    late = api.http.put("/v1/policies/fleets/blue", json={"quiet": "4s"}, headers={"If-Match": '"0"'})
    etag = first.headers["etag"]
    second = api.http.put("/v1/policies/fleets/blue", json={"max_wait": "9s"}, headers={"If-Match": etag})

    assert first.json()["policy"] == {"quiet": "3s"}
    assert first.json()["in_force"]["quiet"] == "3s"
    assert late.status_code == 412
    assert second.json()["policy"] == {"max_wait": "9s"}, "a layer is replaced, not merged"
    assert second.headers["etag"] != etag


def test_default_policy_moves_what_is_due(any_api: Api) -> None:
    before = any_api.write()["due_at"]
    any_api.http.put("/v1/policies/default", json={"quiet": "40s", "max_wait": "50s"})

    assert any_api.get("/v1/workspaces/ws")["due_at"] > before
    assert any_api.get("/v1/workspaces/ws")["policy_in_force"]["quiet"] == "40s"
    assert any_api.get("/v1/events", type="PolicyChanged")["items"][-1]["data"]["policy"] == {
        "max_wait_ms": 50_000,
        "quiet_ms": 40_000,
    }
