"""Checkpoints and evidence by HTTP: pages, bundles that verify, and what is answered while there is no proof yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.api.routes.health import seal_check
from orchestrator.audit.verify.checkpoint import open_checkpoint
from orchestrator.audit.verify.evidence import verify_bundle
from orchestrator.ports.sealing import SealState
from orchestrator.sealing.seal import seal_next
from tests.api.conftest import Api
from tests.api.test_metrics import scrape
from tests.audit.sealing import KEY, SIGNING, checkpoints


def seal(api: Api) -> None:
    assert seal_next(api.services.store, SIGNING) is not None


def finished(api: Api) -> str:
    """Restart ``ws`` for a write, and return the restart."""
    api.write(path="a.py")
    api.restart_all()
    restart: str = api.get("/v1/restarts")["items"][0]["id"]
    return restart


def test_checkpoints_come_in_pages_newest_first(any_api: Api) -> None:
    assert any_api.get("/v1/audit/checkpoints") == {"items": [], "next_cursor": None}
    for number in range(3):
        any_api.write(path=f"{number}.py")
        seal(any_api)
    first = any_api.get("/v1/audit/checkpoints", limit=2)
    second = any_api.get("/v1/audit/checkpoints", limit=2, cursor=first["next_cursor"])
    listed = [*first["items"], *second["items"]]
    assert second["next_cursor"] is None
    assert [item["size"] for item in listed] == [one.tree_size for one in checkpoints(any_api.services.store)][::-1]
    for item in listed:
        head = open_checkpoint(item["note"], [KEY.public])
        assert (head.size, head.position) == (item["size"], item["position"])
        assert (item["exported_at"], item["previous_size"] < item["size"]) == (None, True)


def test_evidence_of_a_restart_verifies_offline(any_api: Api) -> None:
    restart = finished(any_api)
    seal(any_api)
    answer = any_api.http.get(f"/v1/audit/evidence/{restart}")
    assert answer.status_code == 200
    verdict = verify_bundle(answer.content, [KEY.public], restart)
    assert verdict.findings == ()
    assert verdict.proven >= 4
    assert any_api.http.get(f"/v1/audit/evidence/{restart}").content == answer.content


def test_there_is_no_evidence_of_what_is_unknown_unsettled_or_unsealed(any_api: Api) -> None:
    def refused(restart: str) -> tuple[int, str, str | None]:
        answer = any_api.http.get(f"/v1/audit/evidence/{restart}")
        return answer.status_code, answer.json()["type"].rpartition(":")[2], answer.headers.get("Retry-After")

    assert refused("rst_unknown") == (404, "not-found", None)
    any_api.write(path="a.py")
    any_api.tick()
    queued = any_api.get("/v1/restarts")["items"][0]["id"]
    assert refused(queued) == (409, "not-sealed-yet", "10")
    any_api.restart_all()
    seal(any_api)
    assert any_api.http.get(f"/v1/audit/evidence/{queued}").status_code == 200
    later = finished(any_api)
    assert refused(later) == (409, "not-sealed-yet", "10")


@pytest.mark.parametrize("query", [{"limit": 0}, {"cursor": "x"}, {"after": 3}])
def test_impossible_pages_are_refused(api: Api, query: dict[str, str]) -> None:
    assert api.http.get("/v1/audit/checkpoints", params=query).status_code == 422


def test_metrics_say_how_far_the_log_is_sealed(any_api: Api) -> None:
    before = scrape(any_api)
    assert before["orchestrator_unsealed_events"] == any_api.stored()
    assert "orchestrator_last_checkpoint_timestamp_seconds" not in before
    seal(any_api)
    any_api.write(path="late.py")
    any_api.services.store.note_seal_failure("the folder is full")
    after = scrape(any_api)
    [newest] = checkpoints(any_api.services.store)
    assert after["orchestrator_unsealed_events"] == 1
    assert after["orchestrator_checkpoints_unexported"] == 1
    assert after["orchestrator_seal_failures_total"] == 1
    assert after["orchestrator_last_checkpoint_timestamp_seconds"] == pytest.approx(newest.sealed_at.timestamp())


NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATE = NOW - timedelta(seconds=61)
FRESH = NOW - timedelta(seconds=59)


@pytest.mark.parametrize(
    ("unsealed_since", "unexported_since", "said"),
    [
        (None, None, ""),
        (FRESH, FRESH, ""),
        (LATE, None, "not sealed: 3 events or more, the first for more than 60 s (no key)"),
        (None, LATE, "2 checkpoints have not left the database (no key)"),
    ],
)
def test_readyz_warns_of_a_log_without_proof(
    unsealed_since: datetime | None, unexported_since: datetime | None, said: str
) -> None:
    state = SealState(
        newest=None,
        unsealed=3,
        unsealed_since=unsealed_since,
        unexported=2,
        unexported_since=unexported_since,
        failures=1,
        failed_because="no key",
    )
    check = seal_check(state, NOW)
    assert (check.ok, check.detail.startswith(said or "nothing to seal")) == (not said, True)
