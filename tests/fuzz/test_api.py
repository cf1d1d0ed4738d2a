"""The running API under attack: nothing but 4xx for bad input, never a 500, never a hang, and memory stays flat."""

from __future__ import annotations

import random

import httpx2
import psutil
import pytest

from tests.fuzz.attack import Attack, attack
from tests.fuzz.schemathesis_hooks import map_query
from tests.fuzz.seeds import seed
from tests.system.deployment import Embedded

GROWTH_MOST_BYTES = 24 * 1024 * 1024
WRITES = "/v1/workspaces/ws/writes"


def test_no_check_of_schemathesis_fails(attacked: Embedded) -> None:
    ended = attack(attacked.url, seconds=12, examples=3, seed=4)

    assert ended.good, ended.said
    assert ended.cases > 31, ended.said  # each way in at least once; how often in 12 s is the machine's affair


def test_a_failure_is_a_finding_of_one_line() -> None:
    said = """\
=== FAILURES ===
___________ GET /v1/audit/storms ___________
1. Test Case ID: XXlg4P

- ST901 Custom check failed: `only_said_rules_refuse`

    data that fits the schema is refused: no such thing

- ST105 Server error

[500] Internal Server Error:
"""
    assert Attack(cases=7, good=True, said=said).findings == []
    assert Attack(cases=7, good=False, said=said).findings == [
        "GET /v1/audit/storms: ST901 Custom check failed: `only_said_rules_refuse`: "
        "data that fits the schema is refused: no such thing",
        "GET /v1/audit/storms: ST105 Server error: [500] Internal Server Error:",
    ]
    assert "no connection" in Attack(cases=0, good=False, said="no connection").findings[0]


@pytest.mark.parametrize(
    "wait", [60.5, 61, "61", "4711", "-1", "1e9", "\xb2", "\u0663", "", "null", "1.2.3", True, [1]]
)
def test_a_wait_that_is_to_be_refused_is_sent_as_it_is(wait: object) -> None:
    assert map_query(None, {"wait": wait}) == {"wait": wait}


@pytest.mark.parametrize("wait", [0, 1, 0.5, 60, 60.0, "12", "12.25"])
def test_a_wait_that_is_taken_is_made_brief(wait: object) -> None:
    assert map_query(None, {"wait": wait, "other": "x"}) == {"wait": "0.1", "other": "x"}


@pytest.mark.parametrize("depth", [30, 300, 900, 990, 1_100, 5_000, 100_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_of_any_depth_is_refused(http: httpx2.Client, depth: int, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    for body in (
        opening * depth + b"1" + closing * depth,
        b'{"executor": "simulated", "target": {"a":%s' % opening * 9,
    ):
        for method, path in (("PUT", "/v1/workspaces/deep"), ("POST", WRITES), ("POST", "/v1/writes")):
            answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
            assert answer.status_code in (400, 413, 422), answer.text[:300]


@pytest.mark.parametrize("depth", [30, 300, 900, 990])
def test_a_target_nested_deeply_is_refused(http: httpx2.Client, depth: int) -> None:
    for words in (
        b'"target": {"delay": %s}',
        b'"target": {}, "labels": {"a": %s}',
        b'"target": {}, "policy": {"rules": %s}',
    ):
        body = b'{"executor": "simulated", ' + words % (b"[" * depth + b"]" * depth) + b"}"
        answer = http.put("/v1/workspaces/deep", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), answer.text[:300]


@pytest.mark.parametrize("given", ["0" * 5_000, "9" * 5_000, "-1", "1.0", "\xb2", "x" * 60_000])
def test_a_last_event_id_that_is_none_is_refused(http: httpx2.Client, given: str) -> None:
    headers = [(b"Last-Event-ID", given.encode("latin-1"))]
    answer = http.get("/v1/events/stream", headers=headers)

    assert 400 <= answer.status_code < 500


def test_memory_stays_flat_under_bad_input(attacked: Embedded, http: httpx2.Client) -> None:
    """Broken, huge and half-good bodies; what the first hundred left behind is the pools' own."""
    process, chance = psutil.Process(attacked.processes["up"].pid), random.Random(4)
    bodies = [*seed("batch", "ndjson", "deep"), b"[" * 500_000, b'"' + b"x" * 1_000_000, b"\xff" * 900_000]

    def attack_some(count: int) -> None:
        for _ in range(count):
            good = chance.choice(bodies)
            at = chance.randrange(len(good))
            body = good[:at] + bytes([chance.randrange(256)]) + good[at + chance.randrange(3) :]
            kind = chance.choice(["application/json", "application/x-ndjson"])
            answer = http.post("/v1/writes", content=body, headers={"content-type": kind})
            assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text[:300]

    attack_some(100)
    before = process.memory_info().rss
    attack_some(300)

    assert process.memory_info().rss - before < GROWTH_MOST_BYTES
