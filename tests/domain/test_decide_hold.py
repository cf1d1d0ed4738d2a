"""A held workspace: nothing is queued or started, nothing is lost, and after the release one restart comes."""

from __future__ import annotations

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.state import Phase
from orchestrator.errors import InvalidInput
from tests.domain.given_when_then import scenario, that
from tests.domain.virtual_time import World


def test_held_written_to_released_one_restart() -> None:
    run = scenario().at(0).hold()
    world = World(run)
    for second in (5, 10, 50, 100):
        world.at(second, lambda: run.write("a"))
    world.at(200, run.release).run(400)
    (cycle,) = run.of_type(ev.CycleStarted)
    assert cycle.writes == 4
    run.then_pending().then_not_due()


def test_while_held_nothing_is_due_and_nothing_is_queued() -> None:
    run = scenario().at(0).write("a").at(5).hold().then(that(ev.WorkspaceHeld, reason="maintenance", until=None))
    run.then_phase(Phase.HELD)
    run.then_not_due().at(100).tick().then_nothing()
    run.at(110).release().then(that(ev.WorkspaceReleased, reason="done")).then_due(15, ev.Cause.QUIET)


def test_a_queued_restart_stays_queued_and_starts_after_the_release() -> None:
    run = scenario().at(0).write("a").at(15).tick().hold().start().then_nothing().at(20).write("b").tick()
    run.then_nothing().at(50).release().start().then(that(ev.CycleStarted, restart="rst_1", writes=2))


def test_a_retrying_restart_stays_so_and_goes_on_after_the_release() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).fail(jitter=0.2).hold()
    run.at(30).tick().then_nothing().start().then_nothing().manual().start().then_nothing()
    run.at(50).release().start().then(that(ev.CycleStarted, restart="rst_1", attempt=2, requests=1))


def test_a_running_cycle_ends_normally() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().hold()
    run.then_phase(Phase.RUNNING)
    run.at(20).succeed().then(ev.CycleSucceeded).then_pending()
    run.then_phase(Phase.HELD)


def test_a_running_cycle_that_fails_waits_for_the_release_before_its_retry() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().hold().at(20).fail(jitter=0).at(21).start().then_nothing()
    run.at(30).release().start().then(that(ev.CycleStarted, attempt=2))


def test_a_held_workspaces_passed_lease_is_rescued_all_the_same() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().hold().at(45).tick().then(ev.CycleAbandoned)
    run.start().then_nothing().at(46).release().start().then(that(ev.CycleStarted, attempt=2))


def test_the_tick_releases_a_hold_whose_end_has_passed() -> None:
    run = scenario().at(0).hold(until=60).at(10).write("a").at(59.9).tick().then_nothing()
    run.at(60).tick().then(that(ev.WorkspaceReleased, until=60), that(ev.RestartQueued, writes=1, due_at=25))


def test_a_release_of_a_workspace_that_is_not_held_records_nothing() -> None:
    scenario().release().then_nothing()


def test_the_same_hold_again_records_nothing_another_one_replaces_it() -> None:
    run = scenario().hold().hold().then_nothing().hold(until=60).then(that(ev.WorkspaceHeld, until=60))
    run.hold(until=90).then(that(ev.WorkspaceHeld, until=90)).at(61).tick().then_nothing()
    run.at(90).tick().then(ev.WorkspaceReleased)


@pytest.mark.parametrize("until", [99, 100])
def test_a_hold_cannot_end_in_the_past(until: float) -> None:
    run = scenario().at(100)
    with pytest.raises(InvalidInput, match="until"):
        run.hold(until=until)
    assert run.state.hold is None


def test_a_give_ups_next_try_waits_for_the_release() -> None:
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(20).fail().hold()
    run.then_not_due().at(400).tick().then_nothing().at(500).release().then_due(320, ev.Cause.GAVE_UP)


def test_probes_of_a_held_workspace_are_suppressed() -> None:
    scenario().hold().probe().then(that(ev.ProbeSuppressed, reason=ev.Suppression.HELD))


def test_a_probe_that_had_asked_before_the_hold_is_served_after_it() -> None:
    run = scenario().at(0).probe().hold().at(50).tick().then_nothing().release().tick()
    run.then(that(ev.RestartQueued, cause=ev.Cause.PROBE))


def test_a_held_restart_can_be_cancelled() -> None:
    run = scenario().at(0).write("a").at(15).tick().hold().cancel()
    run.then(ev.RestartCancelled, ev.WritesWaived).then_pending()
    run.then_phase(Phase.HELD)
