"""Removal waives by name; registering the id again goes on where its log stopped."""

from __future__ import annotations

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.state import Phase
from orchestrator.errors import NotFound
from tests.domain.given_when_then import scenario, that
from tests.domain.promises import assert_safe

WAIVED = ev.Waiver.WORKSPACE_REMOVED


def test_removed_with_pending_writes_they_are_waived_by_name() -> None:
    run = scenario().at(0).write("a", "b").manual().at(5).remove()
    run.then(
        that(ev.WorkspaceRemoved, reason="gone"),
        that(ev.WritesWaived, from_position=1, to_position=4, writes=2, reason=WAIVED),
    )
    run.then_phase(Phase.REMOVED)
    assert_safe(run.then_pending().then_not_due())


def test_removed_with_nothing_pending_waives_nothing() -> None:
    scenario().remove().then(ev.WorkspaceRemoved)


def test_removed_with_a_request_only_the_request_is_waived() -> None:
    scenario().manual().remove().then(ev.WorkspaceRemoved, that(ev.WritesWaived, writes=0, to_position=2))


def test_removed_while_queued_the_restart_is_cancelled() -> None:
    run = scenario().at(0).write("a").at(15).tick().write("b").remove()
    run.then(
        that(ev.RestartCancelled, restart="rst_1", reason="gone"),
        ev.WorkspaceRemoved,
        that(ev.WritesWaived, from_position=1, to_position=4, writes=2),
    )
    assert_safe(run.then_pending())


def test_removed_while_running_the_cycle_is_abandoned_first() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).write("b").at(17).remove()
    run.then(
        that(ev.CycleAbandoned, cycle="cyc_1", fence=1, reason=ev.Abandonment.REMOVED),
        ev.RestartCancelled,
        ev.WorkspaceRemoved,
        that(ev.WritesWaived, writes=2),
    )
    run.at(30).succeed().then(that(ev.LateResultRejected, cycle="cyc_1", fence=1, result="succeeded"))
    run.tick().then_nothing().start().then_nothing()
    assert_safe(run.then_pending())


def test_a_removed_workspace_is_unknown_to_people() -> None:
    run = scenario().remove()
    with pytest.raises(NotFound):
        run.remove()


def test_registered_again_it_goes_on_with_its_versions_fence_and_last_start() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).succeed().at(17).remove()
    version = run.state.version
    run.at(20).registered().then(ev.WorkspaceRegistered)
    assert run.state.version == version + 1
    run.at(21).write("b").then_due(75, ev.Cause.QUIET).at(75).tick()
    run.then(that(ev.RestartQueued, from_position=3, writes=1)).start()
    run.then(that(ev.CycleStarted, fence=2, previous_started_at=15)).at(76).succeed()
    assert_safe(run.then_pending())


def test_registered_again_it_has_no_hold() -> None:
    run = scenario().hold().remove().at(1).registered().write("a").then_due(16, ev.Cause.QUIET)
    assert run.state.hold is None


def test_registered_again_it_has_no_backoff() -> None:
    run = scenario(max_attempts=1).at(0).write("a").at(15).tick().start().at(20).fail().remove()
    run.then(ev.WorkspaceRemoved, that(ev.WritesWaived, writes=1)).at(30).registered().then_not_due()
    run.at(100).write("b").then_due(115, ev.Cause.QUIET).at(115).tick().start().at(116).fail()
    run.then(ev.CycleFailed, that(ev.RestartGaveUp, next_try_at=416))


def test_a_late_result_of_before_the_removal_does_not_end_a_cycle_of_after_it() -> None:
    run = scenario().at(0).write("a").at(15).tick().start()
    before = run.started
    run.at(16).remove().registered().manual().tick().start().then(that(ev.CycleStarted, fence=2))
    run.at(17).succeed(before).then(that(ev.LateResultRejected, fence=1, current_fence=2))
    run.at(18).succeed().then(that(ev.CycleSucceeded, fence=2))
    assert_safe(run.then_pending())
