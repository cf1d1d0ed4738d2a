"""A give-up is loud, keeps everything pending, and is followed by another restart."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.outcome import give_up_backoff_ms
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase
from tests.domain.given_when_then import Scenario, policy, scenario, that


def given_up(**given: Any) -> Scenario:
    """One write, one failed cycle from 15 to 20 s, no attempt left: next try at 320 s."""
    run = scenario(**{"max_attempts": 1} | given).at(0).write("a").at(15).tick().start().at(20).fail()
    return run.then(
        that(ev.CycleFailed, retry_at=None),
        that(ev.RestartGaveUp, restart="rst_1", attempts=1, next_try_at=320),
    )


def test_after_max_attempts_the_restart_is_given_up() -> None:
    run = scenario(max_attempts=2).at(0).write("a").at(15).tick().start()
    run.at(20).fail(jitter=0).then(that(ev.CycleFailed, retry_at=20)).at(21).start().at(22).fail()
    run.then(that(ev.CycleFailed, retry_at=None), that(ev.RestartGaveUp, attempts=2, next_try_at=322))
    assert run.restarts["rst_1"].state is RestartState.GAVE_UP
    assert run.restarts["rst_1"].error == "no such host"


def test_a_permanent_error_gives_up_at_once() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(20).fail(ev.ErrorKind.PERMANENT)
    run.then(that(ev.CycleFailed, retry_at=None), that(ev.RestartGaveUp, attempts=1))


def test_its_writes_stay_pending_and_come_again_at_next_try_at() -> None:
    run = given_up().then_pending(writes=1).then_due(320, ev.Cause.GAVE_UP)
    run.then_phase(Phase.BACKING_OFF)
    run.at(319).tick().then_nothing().at(320).tick().then(
        that(ev.RestartQueued, restart="rst_2", cause=ev.Cause.GAVE_UP, from_position=1, writes=1, opened_at=0)
    )
    run.start().then(that(ev.CycleStarted, attempt=1, writes=1)).at(321).succeed().then_pending().then_not_due()


def test_its_requests_stay_pending_too_but_are_not_due_again_by_themselves() -> None:
    run = scenario(max_attempts=1).at(0).manual().tick().start().at(1).fail()
    run.then_pending(requests=1).then_due(301, ev.Cause.GAVE_UP)
    run.at(301).tick().then(that(ev.RestartQueued, requests=1, writes=0, cause=ev.Cause.GAVE_UP))


def test_what_arrived_during_the_last_cycle_is_judged_alone() -> None:
    """A fix that was saved while the last attempt still failed; spacing counts from that attempt's start."""
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(16).write("b").at(20).fail()
    run.then_pending(writes=2).then_due(75, ev.Cause.QUIET)
    run.at(75).tick().then(that(ev.RestartQueued, cause=ev.Cause.QUIET, writes=2, last_write_at=16))


def test_a_newer_write_is_judged_alone_from_the_first_one_after_the_give_up() -> None:
    run = given_up().at(100).write("b").then_due(115, ev.Cause.QUIET).at(110).write("c").then_due(125, ev.Cause.QUIET)
    run.at(125).tick().then(
        that(ev.RestartQueued, cause=ev.Cause.QUIET, from_position=1, writes=3, opened_at=0, last_write_at=110)
    )
    run.start().at(126).succeed().then_pending().then_not_due()


def test_max_wait_after_a_give_up_counts_from_the_first_newer_write() -> None:
    given_up(max_wait="20s").at(100).write("b").at(110).write("c").then_due(120, ev.Cause.MAX_WAIT)


def test_max_count_after_a_give_up_counts_newer_writes_only() -> None:
    given_up(max_count=2).at(100).write("b").then_due(115, ev.Cause.QUIET).at(101).write("c").then_due(
        101, ev.Cause.MAX_COUNT
    )


def test_a_write_in_the_window_delays_the_next_try_no_more() -> None:
    given_up().at(310).write("b").then_due(320, ev.Cause.GAVE_UP)


def test_a_manual_request_ends_the_waiting_at_once() -> None:
    run = given_up().at(30).manual().then_due(30, ev.Cause.MANUAL).tick()
    run.then(that(ev.RestartQueued, cause=ev.Cause.MANUAL, writes=1, requests=1))


def test_a_mutation_after_a_give_up_is_due_at_its_time_spaced() -> None:
    given_up().at(30).mutation().then_due(75, ev.Cause.MUTATION)


def test_requests_that_came_during_the_last_failed_cycle_were_never_tried_and_are_due() -> None:
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(16).manual().mutation().at(20).fail()
    run.then(that(ev.CycleFailed, retry_at=None), ev.RestartGaveUp).then_due(16, ev.Cause.MANUAL)
    run.tick().then(that(ev.RestartQueued, cause=ev.Cause.MANUAL, writes=1, requests=2))


def test_no_write_is_lost_by_a_give_up_with_requests_waiting() -> None:
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(16).write("b").manual().at(20).fail()
    run.then_pending(writes=2, requests=1).tick().start().at(21).succeed().then(that(ev.CycleSucceeded, writes=2))
    run.then_pending()


def test_the_give_up_back_off_doubles_up_to_an_hour() -> None:
    numbers = policy(give_up_backoff="5m")
    assert [give_up_backoff_ms(times, numbers) // 60_000 for times in (0, 1, 2, 3, 4, 1_000)] == [5, 10, 20, 40, 60, 60]
    assert give_up_backoff_ms(3, policy(give_up_backoff="2h")) == 7_200_000


def test_the_give_up_back_off_grows_with_give_ups_in_a_row_and_a_success_resets_it() -> None:
    run = given_up().at(320).tick().start().at(321).fail()
    run.then(ev.CycleFailed, that(ev.RestartGaveUp, next_try_at=921))
    run.at(921).tick().start().at(922).succeed().then_pending().then_not_due()
    run.at(1_000).write("b").at(1_015).tick().start().at(1_016).fail()
    run.then(ev.CycleFailed, that(ev.RestartGaveUp, next_try_at=1_316))


def test_leases_that_pass_are_attempts_spent_and_end_in_a_give_up() -> None:
    run = scenario(max_attempts=2).at(0).write("a").at(15).tick().start().at(45).tick()
    run.then(that(ev.CycleAbandoned, reason=ev.Abandonment.LEASE_EXPIRED)).then_ready(45).start()
    run.at(75).tick().then(ev.CycleAbandoned, that(ev.RestartGaveUp, attempts=2, next_try_at=375))
    run.then_pending(writes=1).then_due(375, ev.Cause.GAVE_UP)


def test_workers_that_died_are_attempts_spent_and_end_in_a_give_up() -> None:
    run = scenario(max_attempts=2).at(0).write("a").at(15).tick().start().at(16).bury()
    run.then(that(ev.CycleAbandoned, reason=ev.Abandonment.WORKER_DIED)).start().at(20).bury()
    run.then(ev.CycleAbandoned, that(ev.RestartGaveUp, attempts=2, next_try_at=320))
    run.then_pending(writes=1).then_due(320, ev.Cause.GAVE_UP)


def test_a_manual_request_is_folded_in_the_very_tick_that_gives_up() -> None:
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(16).manual().at(45).tick()
    run.then(ev.CycleAbandoned, ev.RestartGaveUp, that(ev.RestartQueued, restart="rst_2", writes=1, requests=1))


@pytest.mark.parametrize("times", [1, 5])
def test_cycles_given_back_at_shutdown_are_not_attempts_spent(times: int) -> None:
    run = scenario(max_attempts=2).at(0).write("a").at(15).tick()
    for second in range(times):
        run.at(15 + second).start().then(ev.CycleStarted).shut_down()
        run.then(that(ev.CycleAbandoned, reason=ev.Abandonment.SHUTDOWN))
    run.at(30).start().then(that(ev.CycleStarted, attempt=times + 1))
    run.at(31).fail(jitter=0.2).then(that(ev.CycleFailed, retry_at=32))
    run.at(32).start().at(33).fail().then(ev.CycleFailed, that(ev.RestartGaveUp, attempts=times + 2))
