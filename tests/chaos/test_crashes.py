"""Killed at every crash point that it can come to, each process of production loses and doubles nothing."""

from __future__ import annotations

import random

import pytest

from orchestrator.crash_points import POINTS
from tests.chaos.chores import frequent_chores
from tests.chaos.crashes import CRASHES, carry_out
from tests.chaos.judge import judge
from tests.chaos.production import ChaosProduction
from tests.chaos.report import judge_whole_log
from tests.chaos.writers import Writers


def test_the_plan_has_every_crash_point() -> None:
    assert {point.partition("/")[0] for points in CRASHES.values() for point in points} == set(POINTS)


@pytest.mark.timeout(300)  # some thirty ends and starts: seconds, but on a machine that others keep busy
def test_ended_at_every_crash_point_nothing_is_lost_or_doubled(chaos: ChaosProduction) -> None:
    workspaces = chaos.round_of(8, random.Random(4))
    writers = Writers(chaos.url, workspaces, seed=4, name="crashes")
    with writers.at_work(), frequent_chores(chaos.servers.broker.url, "seal", every_s=0.2):
        carry_out(chaos, CRASHES)
        chaos.heal()
        healed_at = chaos.now()

    verdict = judge(chaos, workspaces, writers.operations, healed_at=healed_at)

    assert verdict.problems == []
    assert chaos.kills.keys() >= {(name, point) for name, points in CRASHES.items() for point in points}
    assert verdict.acknowledged > 50, "hardly anything was written meanwhile"
    events, _, _, wrong = judge_whole_log(chaos)
    assert wrong == []
    assert events > verdict.acknowledged
