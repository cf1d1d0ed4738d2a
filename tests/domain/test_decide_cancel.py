"""A person may cancel what has not started; its range is waived by name, what came later is not."""

from __future__ import annotations

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.restart_projection import RestartState
from orchestrator.errors import Conflict
from tests.domain.given_when_then import scenario, that
from tests.domain.promises import assert_safe


def test_a_queued_restart_is_cancelled_and_its_range_waived() -> None:
    run = scenario().at(0).write("a").at(15).tick().at(16).cancel()
    run.then(
        that(ev.RestartCancelled, restart="rst_1", reason="not now"),
        that(ev.WritesWaived, from_position=1, to_position=2, writes=1, reason=ev.Waiver.OPERATOR, restart="rst_1"),
    )
    assert run.restarts["rst_1"].state is RestartState.CANCELLED
    assert_safe(run.then_pending().then_not_due().at(100).tick().then_nothing())


def test_later_writes_open_a_new_window() -> None:
    run = scenario().at(0).write("a").at(15).tick().at(20).write("b").at(21).cancel()
    run.then(ev.RestartCancelled, that(ev.WritesWaived, to_position=2, writes=1)).then_pending(writes=1)
    run.then_due(35, ev.Cause.QUIET).at(35).tick().then(that(ev.RestartQueued, from_position=3, writes=1))
    assert_safe(run)


def test_a_retrying_restart_is_cancelled_with_the_range_it_had_grown_to() -> None:
    run = scenario().at(0).write("a").at(15).tick().at(16).write("b").start().at(17).write("c").at(18).fail()
    run.cancel().then(ev.RestartCancelled, that(ev.WritesWaived, from_position=1, to_position=4, writes=2))
    run.then_pending(writes=1).then_due(76, ev.Cause.QUIET)
    assert_safe(run)


def test_what_a_give_up_had_left_is_waived_with_the_restart_that_took_it() -> None:
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(20).fail().at(100).write("b").at(115)
    run.tick().cancel().then(ev.RestartCancelled, that(ev.WritesWaived, from_position=1, writes=2))
    assert_safe(run.then_pending().then_not_due())


def test_a_running_restart_cannot_be_cancelled() -> None:
    run = scenario().at(0).write("a").at(15).tick().start()
    with pytest.raises(Conflict, match="running"):
        run.cancel()


@pytest.mark.parametrize("named", ["rst_1", "rst_99"])
def test_a_settled_or_unknown_restart_cannot_be_cancelled(named: str) -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).succeed()
    with pytest.raises(Conflict, match=named):
        run.cancel(named)


def test_an_older_restart_cannot_be_cancelled_in_place_of_the_newest() -> None:
    run = scenario(min_interval="0s").at(0).write("a").at(15).tick().start().at(16).succeed().manual().tick()
    with pytest.raises(Conflict, match="rst_1"):
        run.cancel("rst_1")
