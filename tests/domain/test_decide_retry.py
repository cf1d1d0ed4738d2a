"""A failed cycle is tried again after a back-off; the retry takes everything that waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import events as ev
from orchestrator.domain.outcome import retry_backoff_ms
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase
from tests.domain.given_when_then import Scenario, policy, scenario, that


def running(**given: Any) -> Scenario:
    """A first cycle that was started at second 15 for one write."""
    return scenario(**given).at(0).write("a").at(15).tick().start()


def test_a_failed_cycle_is_tried_again_after_its_back_off() -> None:
    run = running().at(20).fail(jitter=0.5)
    run.then(
        that(
            ev.CycleFailed,
            restart="rst_1",
            cycle="cyc_1",
            fence=1,
            duration_ms=5_000,
            error_kind=ev.ErrorKind.TRANSIENT,
            message="no such host",
            retry_at=22.5,
        )
    )
    run.then_phase(Phase.RETRYING)
    run.at(22.499).start().then_nothing()
    run.at(22.5).start().then(that(ev.CycleStarted, restart="rst_1", cycle="cyc_2", attempt=2, fence=2, writes=1))
    run.at(23).succeed().then_pending()


@pytest.mark.parametrize("kind", [ev.ErrorKind.TRANSIENT, ev.ErrorKind.UNKNOWN, ev.ErrorKind.TIMEOUT])
def test_all_kinds_but_permanent_are_tried_again(kind: ev.ErrorKind) -> None:
    running().at(20).fail(kind).then(that(ev.CycleFailed, error_kind=kind, retry_at=22.5))


def test_the_back_off_doubles_with_full_jitter_up_to_its_most() -> None:
    numbers = policy(retry_backoff="5s", retry_backoff_max="30s")
    assert [retry_backoff_ms(spent, numbers, 0.5) for spent in (1, 2, 3, 4, 5, 500)] == [
        *(2_500, 5_000, 10_000, 15_000, 15_000, 15_000),
    ]
    assert retry_backoff_ms(1, numbers, 0.0) == 0


@given(spent=st.integers(1, 1_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_back_off_is_whole_milliseconds_below_its_ceiling(spent: int, jitter: float) -> None:
    numbers = policy(retry_backoff="5s", retry_backoff_max="5m")
    waits = retry_backoff_ms(spent, numbers, jitter)
    assert isinstance(waits, int)
    assert 0 <= waits < min(300_000, 5_000 * 2 ** (spent - 1))


def test_a_retry_is_not_bound_by_min_interval() -> None:
    running(min_interval="10m").at(16).fail(jitter=0).start().then(that(ev.CycleStarted, attempt=2))


def test_a_retry_takes_everything_that_waits() -> None:
    run = running().at(16).write("b").mutation().at(17).fail(jitter=0.2).at(18).start()
    run.then(that(ev.CycleStarted, attempt=2, from_position=1, writes=2, requests=1, files=2))
    run.at(20).succeed().then(that(ev.CycleSucceeded, writes=2)).then_pending().then_not_due()


def test_a_manual_request_brings_the_retry_at_once() -> None:
    run = running().at(20).fail(jitter=0.9).at(21).then_ready(24.5).manual().then_ready(21).start()
    run.then(that(ev.CycleStarted, attempt=2, writes=1, requests=1))


def test_a_manual_request_that_waits_already_brings_the_retry_at_once() -> None:
    running().at(18).manual().at(20).fail(jitter=0.9).then(that(ev.CycleFailed, retry_at=20)).then_ready(20)


def test_a_manual_request_does_not_put_off_a_retry_that_is_ready() -> None:
    running().at(20).fail(jitter=0).at(21).manual().then_ready(20)


def test_a_mutation_or_a_write_does_not_hurry_a_retry() -> None:
    running().at(20).fail(jitter=0.5).at(21).mutation().write("b").then_ready(22.5)


def test_a_fixed_retry_keeps_its_time_when_the_policy_changes() -> None:
    running().at(20).fail(jitter=0.5).under(retry_backoff="1m").tick().then_nothing().then_ready(22.5)


def test_max_attempts_is_read_at_the_failure() -> None:
    run = running().at(20).fail(jitter=0).at(21).start().under(max_attempts=2).at(22).fail()
    run.then(that(ev.CycleFailed, retry_at=None), that(ev.RestartGaveUp, attempts=2))


def test_a_restart_succeeds_after_failures_as_one_restart() -> None:
    run = running().at(16).fail(jitter=0).at(17).start().at(18).fail(jitter=0).at(19).start().at(20).succeed()
    record = run.restarts["rst_1"]
    assert (record.state, record.attempts, record.error) == (RestartState.SUCCEEDED, 3, None)
    run.then_pending()
