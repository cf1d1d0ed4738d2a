"""No false alarm: whatever the real core and service do at random, the verifier finds nothing wrong with it.

``TEST_PROPERTIES=thorough`` looks at twenty times as many.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.audit.verify.lines import Envelope, encode_line
from orchestrator.audit.verify.report import Report
from orchestrator.domain.encoding import encode_data, format_instant
from tests.audit.verify.logs import TICK_US, verify
from tests.audit.verify.random_days import RandomDay
from tests.domain.given_when_then import Scenario, policy, seconds
from tests.domain.test_properties import (
    CYCLES,
    MEDDLING,
    POLICIES,
    REQUESTS,
    WRITES,
    Step,
    healed,
    played,
    worlds,
)
from tests.domain.virtual_time import Cycle
from tests.thorough import THOROUGH, examples

pytestmark = pytest.mark.timeout(3_600 if THOROUGH else 120)


def exported(run: Scenario) -> bytes:
    """The lines that an export of a scenario's log would have."""
    lines = []
    for event in run.log:
        at, data = format_instant(event.recorded_at), msgspec.Raw(encode_data(event.data).encode())
        head = (event.position, event.id, event.workspace, event.version, event.type, event.schema, at)
        lines.append(encode_line(Envelope(*head, None, event.actor, None, None, None, None, data)) + b"\n")
    return b"".join(lines)


def assert_good(report: Report) -> None:
    assert report.violations == ()
    assert report.sums.imbalance == 0


@pytest.mark.parametrize("seed", range(0, examples(20), 5))
def test_days_of_several_workspaces_under_changing_policies(seed: int) -> None:
    for some in range(seed, seed + 5):
        assert_good(verify(RandomDay(some).play(120).export(), tick_us=None))


@worlds(20)
@given(
    given_policy=POLICIES,
    steps=st.lists(st.one_of(WRITES, WRITES, REQUESTS, REQUESTS, MEDDLING), min_size=3, max_size=25),
    cycles=CYCLES,
    position_step=st.sampled_from([1, 7]),
)
def test_worlds_with_workers_that_fail_die_or_freeze(
    given_policy: dict[str, Any], steps: list[Step], cycles: list[Cycle], position_step: int
) -> None:
    world = played(policy(**given_policy), steps, cycles, position_step=position_step)
    assert_good(verify(exported(world.workspace), tick_us=None))
    healed(world, within=1_000 + 3_800 * (len(cycles) + 1))
    report = verify(exported(world.workspace), tick_us=None)
    assert_good(report)
    assert report.sums.pending == 0


@worlds(20)
@given(
    given_policy=POLICIES,
    steps=st.lists(st.one_of(WRITES, WRITES, REQUESTS), min_size=3, max_size=25),
    cycle_s=st.sampled_from([0.5, 5, 20, 70]),
)
def test_l1_and_l2_hold_while_nothing_is_broken(
    given_policy: dict[str, Any], steps: list[Step], cycle_s: float
) -> None:
    world = played(policy(**given_policy), steps, [Cycle(cycle_s)] * 500)
    world.run(seconds(world.workspace.now) + 400)
    assert_good(verify(exported(world.workspace), tick_us=TICK_US))
