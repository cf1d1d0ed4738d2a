"""A probe that sees a booting workspace as dead must not restart it (DESIGN section 1, point 3)."""

from __future__ import annotations

from functools import partial

import pytest

from orchestrator.domain import events as ev
from tests.domain.given_when_then import Scenario, scenario, that
from tests.domain.virtual_time import Cycle, World


def test_a_healthy_probe_records_nothing() -> None:
    scenario().at(5).probe(healthy=True).then_nothing()


def test_an_unhealthy_probe_of_an_idle_workspace_restarts_it() -> None:
    run = scenario().at(5).probe().then(that(ev.RestartRequested, trigger=ev.Trigger.PROBE, reason="no answer"))
    run.at(6).tick().then(that(ev.RestartQueued, cause=ev.Cause.PROBE, requests=1, due_at=5))
    run.start().at(7).succeed().then_pending()


def test_a_probe_during_a_cycle_and_inside_settle_is_suppressed_with_an_event_and_starts_nothing() -> None:
    run = scenario().at(0).write("a").at(15).tick().start()
    run.at(16).probe().then(that(ev.ProbeSuppressed, reason=ev.Suppression.CYCLE_RUNNING, detail="no answer"))
    run.at(20).succeed()
    run.at(49.999).probe().then(that(ev.ProbeSuppressed, reason=ev.Suppression.SETTLING))
    run.at(200).tick().then_nothing().then_pending().then_not_due()


def test_after_settle_a_probe_restarts() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(20).succeed()
    run.at(50).probe().then(ev.RestartRequested).then_due(75, ev.Cause.PROBE)
    run.at(75).tick().then(that(ev.RestartQueued, cause=ev.Cause.PROBE))


def test_five_probes_in_a_row_against_a_booting_workspace_give_zero_extra_restarts() -> None:
    run = scenario()
    world = World(run, [Cycle(20)] * 9).at(0, partial(run.write, "a"))
    for second in (16, 22, 28, 34, 40):
        world.at(second, run.probe)
    world.run(600)
    assert len(run.of_type(ev.CycleStarted)) == 1
    assert len(run.of_type(ev.ProbeSuppressed)) == 5


def _while_running(run: Scenario) -> Scenario:
    return run.manual().tick().start()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda run: _while_running(run).at(6).hold().write("a"), ev.Suppression.CYCLE_RUNNING),
        (lambda run: _while_running(run).at(6).hold().succeed().write("a"), ev.Suppression.HELD),
        (lambda run: run.hold(), ev.Suppression.HELD),
        (lambda run: _while_running(run).at(6).succeed().write("a"), ev.Suppression.SETTLING),
        (lambda run: _while_running(run).at(6).fail(), ev.Suppression.SETTLING),
        (lambda run: _while_running(run).at(6).shut_down(), ev.Suppression.SETTLING),
        (lambda run: run.write("a"), ev.Suppression.RESTART_PENDING),
        (lambda run: run.mutation(), ev.Suppression.RESTART_PENDING),
        (lambda run: run.probe(), ev.Suppression.RESTART_PENDING),
        (lambda run: run.manual().tick(), ev.Suppression.RESTART_PENDING),
    ],
)
def test_the_first_reason_that_holds_is_recorded(given: object, reason: ev.Suppression) -> None:
    assert callable(given)
    given(scenario().at(5)).at(7).probe().then(that(ev.ProbeSuppressed, reason=reason))


@pytest.mark.parametrize("given", ["retrying", "given up"])
def test_a_probe_past_settle_is_suppressed_while_a_failed_restart_waits(given: str) -> None:
    run = scenario(settle="0s", max_attempts=1 if given == "given up" else 3).at(0).manual().tick().start()
    run.at(1).fail(jitter=0.9).at(2).probe().then(that(ev.ProbeSuppressed, reason=ev.Suppression.RESTART_PENDING))


def test_a_recorded_write_does_not_suppress_a_probe() -> None:
    scenario(rules=[{"match": "*.log", "action": "record"}]).write("a.log").probe().then(ev.RestartRequested)


def test_no_settle_no_settling() -> None:
    run = scenario(settle="0s").at(0).manual().tick().start().at(1).succeed().probe().then(ev.RestartRequested)
    run.then_due(60, ev.Cause.PROBE)


def test_suppression_is_a_fact_and_changes_nothing() -> None:
    run = scenario().at(0).hold()
    before = run.state
    assert run.probe().state == before
    assert run.log[-1].version is None
