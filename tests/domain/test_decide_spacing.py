"""``min_interval``: counted from the newest start, whatever started it; only a manual request is exempt."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from tests.domain.given_when_then import scenario, that


def test_the_next_restart_waits_for_min_interval_after_the_last_start() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).succeed()
    run.at(20).write("b").then_due(75, ev.Cause.QUIET)
    run.at(74.9).tick().then_nothing().at(75).tick().then(that(ev.RestartQueued, due_at=75, opened_at=20))


def test_spacing_counts_from_the_start_not_from_the_queueing() -> None:
    run = scenario().at(0).write("a").at(15).tick().at(40).start().at(41).succeed()
    run.at(50).write("b").then_due(100, ev.Cause.QUIET)


def test_while_spacing_keeps_a_restart_back_the_window_keeps_absorbing() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).succeed().at(17).write("b")
    for second in range(20, 75, 5):
        run.at(second).write("c").tick().then_nothing()
    run.at(77).tick().then(that(ev.RestartQueued, due_at=77, cause=ev.Cause.MAX_WAIT, writes=12))


def test_max_wait_shorter_than_min_interval_is_legal_and_spacing_wins() -> None:
    run = scenario(max_wait="5s", quiet="2s").at(0).write("a").at(2).tick().start().at(3).succeed()
    run.at(4).write("b").then_due(62, ev.Cause.QUIET)


def test_max_count_is_spaced_too() -> None:
    run = scenario(max_count=1).at(0).write("a").tick().start().at(1).succeed()
    run.at(2).write("b").then_due(60, ev.Cause.MAX_COUNT)


def test_a_mutation_is_spaced_a_manual_request_is_not() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).succeed()
    run.at(50).mutation().then_due(75, ev.Cause.MUTATION)
    run.at(51).manual().then_due(51, ev.Cause.MANUAL)


def test_a_probes_request_is_spaced() -> None:
    run = scenario(settle="1s").at(0).write("a").at(15).tick().start().at(16).succeed()
    run.at(20).probe().then_due(75, ev.Cause.PROBE)


def test_a_give_ups_next_try_is_spaced() -> None:
    run = scenario(give_up_backoff="5s", max_attempts=1).at(0).write("a").at(15).tick().start().at(16).fail()
    run.then_due(75, ev.Cause.GAVE_UP)


def test_a_manual_start_moves_the_spacing_too() -> None:
    run = scenario().at(0).manual().tick().start().at(1).succeed().at(30).manual().tick().start().at(31).succeed()
    run.at(40).write("a").then_due(90, ev.Cause.QUIET)


def test_a_retrys_start_moves_the_spacing_too() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).fail(jitter=0.4).at(18).start().at(19).succeed()
    run.at(20).write("b").then_due(78, ev.Cause.QUIET)


def test_no_min_interval_no_spacing() -> None:
    run = scenario(min_interval="0s").at(0).write("a").at(15).tick().start().at(16).succeed()
    run.at(20).write("b").then_due(35, ev.Cause.QUIET)


def test_a_start_at_the_very_instant_of_the_last_one_waits() -> None:
    """S7: stamps strictly rise, also while the database's clock stands still."""
    run = scenario().at(0).manual().tick().start().fail(jitter=0)
    run.then_ready(0).start().then_nothing()
    run.at(0.000_001).start().then(that(ev.CycleStarted, attempt=2, started_at=0.000_001, previous_started_at=0))


# --- how many cycles at once


@pytest.mark.parametrize(
    ("given", "capacity", "starts"),
    [
        ({"max_concurrent": 2}, cmd.Capacity(running_in_fleet=1), True),
        ({"max_concurrent": 2}, cmd.Capacity(running_in_fleet=2), False),
        ({}, cmd.Capacity(running_in_fleet=1_000, running=1_000), True),
        ({}, cmd.Capacity(running=4, running_most=4), False),
        ({}, cmd.Capacity(running=3, running_most=4), True),
        ({"max_concurrent": 9}, cmd.Capacity(running=4, running_most=4, running_in_fleet=1), False),
    ],
)
def test_a_start_waits_for_its_fleet_and_for_the_global_cap(
    given: dict[str, Any], capacity: cmd.Capacity, starts: bool
) -> None:
    run = scenario(**given).at(0).manual().tick().start(capacity=capacity)
    run.then(*([ev.CycleStarted] if starts else []))


def test_nothing_starts_that_is_not_queued() -> None:
    scenario().at(0).write("a").start().then_nothing()


def test_a_running_workspace_is_not_started_twice() -> None:
    scenario().at(0).manual().tick().start().then(ev.CycleStarted).at(5).start(worker="worker-2").then_nothing()
