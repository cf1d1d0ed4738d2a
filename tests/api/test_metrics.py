"""Metrics: what happened, counted from the log, the same whoever is asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.api.log_sums import SAVE_FROM
from orchestrator.audit.periodic_run import PeriodicVerification
from tests.api.conftest import Api, served

Numbers = dict[str, float]


def scrape(api: Api) -> Numbers:
    answer = api.http.get("/metrics")
    assert answer.status_code == 200
    found: Numbers = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith("orchestrator_")
        assert family.documentation
        for sample in family.samples:
            assert "workspace" not in sample.labels
            labels = ",".join(sample.labels.values())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_numbers_say_what_happened(any_api: Api, tmp_path: Path) -> None:
    any_api.put_workspace("ws", policy={"rules": [{"match": "*.md", "action": "record"}]})
    any_api.put_workspace("bad", target={"fail_first": 1, "error_kind": "permanent"})
    for name in ("a.py", "b.py", "notes.md"):
        any_api.write(path=name)
    any_api.write("bad")
    any_api.restart_all()
    any_api.http.post("/v1/workspaces/ws/probes", json={"healthy": False})
    any_api.write(path="c.py")
    any_api.http.delete("/v1/workspaces/ws")
    found = scrape(any_api)

    assert {name: found[f"orchestrator_{name}"] for name in EXPECTED} == EXPECTED
    assert found["orchestrator_tick_age_seconds"] < 60
    assert found["orchestrator_cycle_duration_seconds_bucket{+Inf}"] == 2
    assert found["orchestrator_start_lateness_seconds_sum"] > 0


EXPECTED = {
    "up": 1,
    "writes_total{opened_window}": 3,
    "writes_total{folded}": 1,
    "writes_total{recorded}": 1,
    "writes_total{held}": 0,
    "folds_total": 4,
    "restarts_total{quiet}": 2,
    "restarts_total{manual}": 0,
    "cycles_total{succeeded}": 1,
    "cycles_total{failed}": 1,
    "cycle_duration_seconds_count": 2,
    "start_lateness_seconds_count": 2,
    "probes_suppressed_total{settling}": 1,
    "writes_covered_total": 2,
    "writes_waived_total": 1,
    "pending_writes": 1,
    "ledger_imbalance": 0,
    "workspaces{removed}": 1,
    "workspaces{backing_off}": 1,
    "workspaces{idle}": 0,
}


def test_numbers_are_the_same_in_every_process(any_api: Api) -> None:
    batch = [{"workspace": "ws", "path": f"f{number}"} for number in range(SAVE_FROM + 100)]
    any_api.http.post("/v1/writes", json=batch)
    with served(any_api.services.settings.url) as other:
        first, second = scrape(any_api), scrape(other)
        any_api.write()
        third = scrape(other)

    folded = "orchestrator_writes_total{folded}"
    assert first[folded] == second[folded] == len(batch) - 1
    assert third[folded] == len(batch)
    with any_api.services.store.read() as reader:
        kept = reader.counters()
    assert kept.position >= len(batch), "a scrape keeps what it folded"
    assert kept.sums["accepted.restart"] == len(batch)


def test_ledger_balances_at_every_moment(any_api: Api) -> None:
    done = threading.Event()

    def write(number: int) -> None:
        for count in range(25):
            any_api.write(path=f"{number}-{count}")

    def scrape_on() -> list[float]:
        found = [scrape(any_api)["orchestrator_ledger_imbalance"]]
        while not done.is_set():
            found.append(scrape(any_api)["orchestrator_ledger_imbalance"])
        return found

    with ThreadPoolExecutor(5) as pool:
        scraped = pool.submit(scrape_on)
        writers = [pool.submit(write, number) for number in range(3)]
        while not all(writer.done() for writer in writers):
            any_api.restart_all()
        done.set()
        found = scraped.result(30)

    assert len(found) > 3
    assert set(found) == {0}


def test_what_the_periodic_verification_found(any_api: Api) -> None:
    any_api.put_workspace("ws")
    any_api.write(path="a.py")
    before = scrape(any_api)
    assert before["orchestrator_violations_total{S3}"] == 0, "what `increase` counts from"
    assert "orchestrator_verification_age_seconds" not in before

    PeriodicVerification(any_api.services.store).run()
    found = scrape(any_api)
    assert found["orchestrator_violations_total{S1}"] == 0
    assert found["orchestrator_violations_total{log}"] == 0
    assert found["orchestrator_verification_age_seconds"] < 60
    with any_api.services.store.read() as reader:
        kept = reader.verification()
    assert kept is not None
    assert found["orchestrator_verified_position"] == kept.position
    worse = replace(kept, violations={"S3": 2})
    assert any_api.services.store.save_verification(worse, expected_position=kept.position)
    assert scrape(any_api)["orchestrator_violations_total{S3}"] == 2
