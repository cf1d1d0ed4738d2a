"""Manual and mutation requests: never lost, never suppressed; manual ones are never made to wait for spacing."""

from __future__ import annotations

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide
from orchestrator.errors import InvalidInput
from tests.domain.given_when_then import scenario, that


@pytest.mark.parametrize("trigger", [ev.Trigger.MANUAL, ev.Trigger.MUTATION])
def test_a_request_is_recorded_and_folded_at_the_next_tick(trigger: ev.Trigger) -> None:
    run = scenario().at(5).ask(cmd.RequestRestart(trigger=trigger, reason="why not"))
    run.then(that(ev.RestartRequested, trigger=trigger, reason="why not")).then_pending(requests=1)
    run.at(6).tick().then(
        that(
            ev.RestartQueued,
            cause=ev.Cause(trigger.value),
            writes=0,
            requests=1,
            files=0,
            opened_at=5,
            last_write_at=None,
            due_at=5,
        )
    )
    run.start().at(7).succeed().then(that(ev.CycleSucceeded, writes=0)).then_pending()


def test_a_probe_cannot_be_smuggled_in_as_a_request() -> None:
    """It would get round the suppression of probes (CONTRACT section 5: ``trigger`` is manual or mutation)."""
    run = scenario()
    with pytest.raises(InvalidInput, match="probe"):
        decide(run.state, cmd.RequestRestart(trigger=ev.Trigger.PROBE, reason="x"), run.policy, run.now)


def test_manual_during_a_running_cycle_waits_and_then_runs_once() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(20).manual().at(21).manual()
    run.tick().then_nothing().start().then_nothing()
    run.at(30).succeed().then_due(20, ev.Cause.MANUAL)
    run.tick().then(that(ev.RestartQueued, cause=ev.Cause.MANUAL, requests=2)).start().then(ev.CycleStarted)
    run.at(40).succeed().then_pending().then_not_due()
    assert len(run.of_type(ev.CycleStarted)) == 2


def test_manual_takes_the_open_window_along() -> None:
    run = scenario().at(0).write("a", "b").at(2).manual().tick()
    run.then(that(ev.RestartQueued, cause=ev.Cause.MANUAL, writes=2, requests=1)).start().at(3).succeed()
    run.then_pending().then_not_due()


def test_manual_while_a_restart_is_queued_is_taken_by_its_start() -> None:
    run = scenario().at(0).write("a").at(15).tick().manual().start().then(that(ev.CycleStarted, writes=1, requests=1))
    run.at(16).succeed().then_pending().then_not_due()


def test_a_mutation_inside_the_settle_time_is_never_suppressed() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(20).succeed()
    run.at(21).mutation().then(ev.RestartRequested).then_due(75, ev.Cause.MUTATION)
    run.at(75).tick().then(that(ev.RestartQueued, cause=ev.Cause.MUTATION)).start().at(76).succeed().then_pending()


def test_a_mutation_during_a_cycle_is_never_suppressed() -> None:
    run = scenario().at(0).manual().tick().start().at(1).mutation().then(ev.RestartRequested).at(2).succeed()
    run.then_pending(requests=1).then_due(60, ev.Cause.MUTATION)


def test_manual_and_mutation_wait_for_the_release_of_a_hold() -> None:
    run = scenario().at(0).hold().at(1).manual().at(2).mutation().at(50).tick().then_nothing().then_not_due()
    run.at(60).release().then_due(1, ev.Cause.MANUAL).tick()
    run.then(that(ev.RestartQueued, requests=2, cause=ev.Cause.MANUAL))


def test_manual_is_not_kept_back_by_a_slow_burst() -> None:
    run = scenario(quiet="10m", max_wait="1h").at(0).write("a").at(5).manual().then_due(5, ev.Cause.MANUAL)
    run.tick().then(that(ev.RestartQueued, writes=1, requests=1))
