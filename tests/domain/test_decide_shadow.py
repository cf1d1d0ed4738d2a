"""Shadow mode: everything is decided and recorded, nothing is executed."""

from __future__ import annotations

from orchestrator.domain import events as ev
from tests.domain.given_when_then import scenario, that
from tests.domain.promises import assert_safe


def test_a_shadow_cycle_ends_at_once_and_covers_its_writes() -> None:
    run = scenario(mode="shadow").at(0).write("a", "b").at(15).tick().start()
    run.then(
        that(ev.CycleStarted, shadow=True, writes=2, fence=1),
        that(ev.CycleSucceeded, shadow=True, writes=2, fence=1, duration_ms=0, verified=False),
    )
    assert run.restarts["rst_1"].shadow
    assert_safe(run.then_pending().then_not_due())


def test_shadow_cycles_are_spaced_and_stamped_like_live_ones() -> None:
    run = scenario(mode="shadow").at(0).write("a").at(15).tick().start().at(20).write("b")
    run.then_due(75, ev.Cause.QUIET).at(75).tick().start()
    run.then(that(ev.CycleStarted, fence=2, previous_started_at=15), ev.CycleSucceeded)


def test_the_mode_is_read_at_each_start() -> None:
    run = scenario().at(0).write("a").at(15).tick().under(mode="shadow").start()
    run.then(that(ev.CycleStarted, shadow=True), ev.CycleSucceeded)
    run.at(20).write("b").at(75).tick().under(mode="live").start().then(that(ev.CycleStarted, shadow=False))
    run.at(76).fail(jitter=0).under(mode="shadow").at(77).start()
    run.then(that(ev.CycleStarted, attempt=2, shadow=True), that(ev.CycleSucceeded, shadow=True))


def test_a_probe_after_a_shadow_cycle_settles_too() -> None:
    run = scenario(mode="shadow").at(0).manual().tick().start().at(1).probe()
    run.then(that(ev.ProbeSuppressed, reason=ev.Suppression.SETTLING))
