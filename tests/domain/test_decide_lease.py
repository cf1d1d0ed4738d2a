"""Leases, fences, and results that come late, twice or from the dead."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from tests.domain.given_when_then import Scenario, scenario, that
from tests.domain.promises import assert_safe


def running(**given: Any) -> Scenario:
    """One write, a cycle started at second 15 with a lease up to 45."""
    return scenario(**given).at(0).write("a").at(15).tick().start().then(that(ev.CycleStarted, lease_until=45))


def test_a_passed_lease_is_rescued_by_the_tick_and_the_same_restart_goes_on_at_once() -> None:
    run = running().at(44.9).tick().then_nothing().at(45).tick()
    run.then(that(ev.CycleAbandoned, cycle="cyc_1", fence=1, reason=ev.Abandonment.LEASE_EXPIRED))
    run.then_pending(writes=1).then_ready(45).start(worker="worker-2")
    run.then(that(ev.CycleStarted, restart="rst_1", attempt=2, fence=2, worker="worker-2", previous_started_at=15))
    run.at(46).succeed().then_pending()


def test_a_dead_workers_cycle_is_abandoned_long_before_its_lease_and_goes_on_at_once() -> None:
    run = running().at(16).bury()
    run.then(that(ev.CycleAbandoned, cycle="cyc_1", fence=1, reason=ev.Abandonment.WORKER_DIED))
    run.then_pending(writes=1).then_ready(16).start(worker="worker-2")
    run.then(that(ev.CycleStarted, restart="rst_1", attempt=2, fence=2))


def test_the_death_of_a_worker_whose_cycle_has_ended_or_was_taken_over_says_nothing() -> None:
    ended = running().at(16).succeed()
    ended.bury(ended.started).then_nothing()
    taken_over = running()
    first = taken_over.started
    taken_over.at(45).tick().start(worker="worker-2").bury(first).then_nothing()


def test_a_renewed_lease_is_not_rescued() -> None:
    running().at(40).renew().at(69.9).tick().then_nothing().at(70).tick().then(ev.CycleAbandoned)


def test_what_came_during_the_dead_workers_cycle_goes_with_the_next_attempt() -> None:
    run = running().at(20).write("b").at(45).tick().start().then(that(ev.CycleStarted, writes=2, from_position=1))
    run.at(46).succeed().then_pending()


def test_a_result_after_the_lease_still_counts_while_the_cycle_is_open() -> None:
    running().at(60).succeed().then(that(ev.CycleSucceeded, fence=1)).then_pending()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_worker_frozen_past_its_lease_that_wakes_up_changes_nothing_and_is_recorded(restarted: bool) -> None:
    run = running()
    zombie = run.started
    run.at(45).tick()
    if restarted:
        run.start(worker="worker-2")
    before = run.state
    run.at(50).succeed(zombie).then(
        that(
            ev.LateResultRejected,
            restart="rst_1",
            cycle="cyc_1",
            fence=1,
            current_fence=2 if restarted else 1,
            result="succeeded",
        )
    )
    assert run.state.restart == before.restart
    run.then_pending(writes=1)
    assert_safe(run)


def test_a_late_failure_and_a_late_shutdown_say_what_they_were() -> None:
    run = running()
    zombie = run.started
    run.at(45).tick().fail(of=zombie).then(that(ev.LateResultRejected, result="failed: no such host"))
    run.shut_down(zombie).then(that(ev.LateResultRejected, result="shutdown"))


def test_a_doubled_result_covers_once() -> None:
    run = running().at(20).succeed().then(ev.CycleSucceeded).succeed().then(ev.LateResultRejected)
    assert_safe(run.then_pending())


def test_a_result_with_a_wrong_fence_changes_nothing() -> None:
    run = running()
    finish = cmd.FinishCycle(restart="rst_1", cycle="cyc_1", fence=7, result=cmd.Success())
    run.at(20).ask(finish).then(that(ev.LateResultRejected, fence=7, current_fence=1)).then_pending(writes=1)


def test_a_result_with_the_current_fence_of_another_cycle_changes_nothing() -> None:
    run = running()
    finish = cmd.FinishCycle(restart="rst_1", cycle="cyc_0", fence=1, result=cmd.Success())
    run.at(20).ask(finish).then(ev.LateResultRejected).then_pending(writes=1)


def test_a_cycle_given_back_goes_on_at_once() -> None:
    run = running().at(20).shut_down().then(that(ev.CycleAbandoned, reason=ev.Abandonment.SHUTDOWN))
    run.then_ready(20).start(worker="worker-2").then(that(ev.CycleStarted, attempt=2, fence=2))


def test_an_unmoved_generation_is_not_verified() -> None:
    run = running()
    same = cmd.Success(generation_before="g1", generation_after="g1")
    run.at(20).ask(cmd.FinishCycle(restart="rst_1", cycle="cyc_1", fence=1, result=same))
    run.then(that(ev.CycleSucceeded, verified=False))


def test_an_unknown_generation_is_not_verified() -> None:
    run = running()
    run.at(20).ask(cmd.FinishCycle(restart="rst_1", cycle="cyc_1", fence=1, result=cmd.Success()))
    run.then(that(ev.CycleSucceeded, verified=False, generation_after=None))


def test_a_late_result_raises_the_version_like_every_decision() -> None:
    run = running().at(20).succeed()
    version = run.state.version
    assert run.succeed().state.version == version + 1
