"""One burst, one restart: windows, edges, counts, ranges, and the cases that made this product."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide
from orchestrator.domain.state import Phase
from orchestrator.errors import NotFound
from tests.domain.given_when_then import REGISTRATION, Scenario, policy, scenario, seconds, that
from tests.domain.promises import assert_safe
from tests.domain.virtual_time import Cycle, World


def burst(run: Scenario, world: World, writes: int, *, over: float, begins: float = 0) -> None:
    """Plan so many writes, evenly over so many seconds, the first and the last at its ends."""
    for number in range(writes):
        world.at(begins + over * number / (writes - 1), partial(run.write, f"src/{number}.py"))


def starts(run: Scenario) -> list[float]:
    return [seconds(cycle.started_at) for cycle in run.of_type(ev.CycleStarted)]


def test_first_write_restarts() -> None:
    run = scenario().at(0).write("a").at(14.999).tick().then_nothing()
    run.at(15).tick().then(
        that(
            ev.RestartQueued,
            restart="rst_1",
            cause=ev.Cause.QUIET,
            kind=ev.Kind.RESTART,
            from_position=1,
            to_position=2,
            writes=1,
            requests=0,
            files=1,
            opened_at=0,
            last_write_at=0,
            due_at=15,
            quiet_ms=15_000,
            max_wait_ms=60_000,
            max_count=10_000,
            min_interval_ms=60_000,
            policy_version=0,
        )
    )
    run.at(15.2).start().then(
        that(
            ev.CycleStarted,
            restart="rst_1",
            attempt=1,
            iteration=1,
            fence=1,
            from_position=1,
            to_position=2,
            writes=1,
            requests=0,
            files=1,
            started_at=15.2,
            previous_started_at=None,
            lease_until=45.2,
            shadow=False,
        )
    )
    run.at(20.2).succeed().then(
        that(
            ev.CycleSucceeded,
            restart="rst_1",
            fence=1,
            writes=1,
            duration_ms=5_000,
            generation_before="g1",
            generation_after="g2",
            verified=True,
            shadow=False,
        )
    )
    run.then_pending().then_not_due()
    assert run.state.settled_to == 2


def test_second_write_inside_the_window_is_folded_and_does_not_move_the_windows_start() -> None:
    run = scenario().at(0).write("a").at(10).write("b").at(25).tick()
    run.then(that(ev.RestartQueued, writes=2, opened_at=0, last_write_at=10, due_at=25))
    run.start().at(26).succeed().then(that(ev.CycleSucceeded, writes=2))
    assert len(run.restarts) == 1


@pytest.mark.parametrize("writes", [10, 17])
@pytest.mark.parametrize("over", [3, 30, 45])
def test_a_burst_gives_exactly_one_restart_with_all_writes_in_its_range(writes: int, over: float) -> None:
    run = scenario()
    world = World(run)
    burst(run, world, writes, over=over)
    world.run(300)
    (restart,) = run.restarts.values()
    written = [event.position for event in run.log if isinstance(event.data, ev.FileWritten)]
    assert (restart.writes, restart.files) == (writes, writes)
    assert restart.from_position <= written[0]
    assert restart.to_position == written[-1]
    assert_safe(run.then_pending())


def test_a_write_after_the_window_gives_a_second_restart() -> None:
    run = scenario(min_interval="0s")
    world = World(run).at(0, partial(run.write, "a")).at(20, partial(run.write, "b")).run(100)
    assert starts(run) == [15, 35]
    assert [restart.writes for restart in world.workspace.restarts.values()] == [1, 1]


def test_two_workspaces_are_independent() -> None:
    """Nothing of one workspace reaches the other: neither a hold, nor a failure, nor a running cycle."""
    one, other = scenario(), scenario()
    one.at(0).write("a").at(5).hold()
    other.at(3).write("a").at(18).tick().then(that(ev.RestartQueued, due_at=18)).start().at(19).fail()
    one.at(20).release().tick().then(that(ev.RestartQueued, due_at=15)).start().at(21).succeed()
    assert [len(run.restarts) for run in (one, other)] == [1, 1]


def test_every_drained_iteration_has_a_new_later_stamp_recorded() -> None:
    run = scenario(quiet="0s", min_interval="5s")
    world = World(run, [Cycle(10)] * 9)
    for second in range(0, 60, 3):
        world.at(second, partial(run.write, "a"))
    world.run(120)
    cycles = run.of_type(ev.CycleStarted)
    assert [cycle.iteration for cycle in cycles] == [1, 2, 3, 4, 5, 6, 7]
    for earlier, later in pairwise(cycles):
        assert later.started_at > earlier.started_at
        assert later.previous_started_at == earlier.started_at
        assert later.fence == earlier.fence + 1
    assert_safe(run.then_pending())


@pytest.mark.parametrize("writes", [1, 2, 17, 200])
def test_what_arrives_during_a_cycle_is_covered_by_exactly_one_later_cycle_however_many_arrive(writes: int) -> None:
    run = scenario()
    world = World(run, [Cycle(50)])
    world.at(0, partial(run.write, "first"))
    for number in range(writes):
        world.at(16 + number * 0.2, partial(run.write, f"late/{number}"))
    world.run(400)
    assert [cycle.writes for cycle in run.of_type(ev.CycleStarted)] == [1, writes]
    assert_safe(run.then_pending())


def test_a_write_at_min_interval_plus_5_s_into_a_still_running_slow_cycle_gives_one_more_cycle_never_a_chain() -> None:
    run = scenario()
    world = World(run, [Cycle(100), Cycle(100), Cycle(100)])
    world.at(0, partial(run.write, "a")).at(15 + 65, partial(run.write, "b")).run(600)
    assert starts(run) == [15, 115]
    assert [cycle.writes for cycle in run.of_type(ev.CycleStarted)] == [1, 1]
    assert_safe(run.then_pending())


def test_none_of_what_came_during_a_quick_cycle_starts_before_the_spacing_allows() -> None:
    run = scenario(quiet="1s")
    World(run, [Cycle(5)]).at(0, partial(run.write, "a")).at(2, partial(run.write, "b")).run(200)
    assert starts(run) == [1, 61]


def test_an_out_of_window_write_fed_into_a_still_draining_cycle() -> None:
    """The test that was never written: the first cycle is drained into a second one, re-stamped; a write
    65 s after the first start, outside its window, falls into the second. One more cycle, spaced from the
    newest stamp."""
    run = scenario()
    world = World(run, [Cycle(70), Cycle(40)])
    world.at(0, partial(run.write, "a"))  # starts at 15, runs to 85
    world.at(50, partial(run.write, "b"))  # due at 75, drained at 85: the re-stamp
    world.at(90, partial(run.write, "c"))  # 75 s after the first start, 5 s after the re-stamped one
    world.run(600)
    assert starts(run) == [15, 85, 145]
    assert [cycle.iteration for cycle in run.of_type(ev.CycleStarted)] == [1, 2, 1]
    assert [cycle.writes for cycle in run.of_type(ev.CycleStarted)] == [1, 1, 1]
    assert_safe(run.then_pending())


def test_the_recorded_incident_gives_one_restart_at_60_s() -> None:
    """17 writes over 45 s, a restart takes 20 s, the default policy."""
    run = scenario()
    world = World(run, [Cycle(20)] * 9)
    burst(run, world, 17, over=45)
    world.run(600)
    assert starts(run) == [60]
    (restart,) = run.restarts.values()
    assert (restart.writes, restart.cause) == (17, ev.Cause.QUIET)
    assert_safe(run.then_pending())


def test_the_incident_with_the_leading_edge_gives_two() -> None:
    run = scenario(edge="leading")
    world = World(run, [Cycle(20)] * 9)
    burst(run, world, 17, over=45)
    world.run(600)
    assert starts(run) == [1, 61]  # the tick of second 0 came just before the first write
    assert [cycle.writes for cycle in run.of_type(ev.CycleStarted)] == [1, 16]


# --- ranges


def test_a_start_takes_everything_that_came_since_the_queueing() -> None:
    run = scenario().at(0).write("a").at(15).tick().then(that(ev.RestartQueued, writes=1, to_position=2))
    run.at(16).write("b").mutation().then_not_due()
    run.at(17).start().then(that(ev.CycleStarted, from_position=1, to_position=5, writes=2, requests=1, files=2))
    run.at(18).succeed().then_pending()
    record = run.restarts["rst_1"]
    assert (record.to_position, record.writes, record.requests, record.files) == (5, 2, 1, 2)


def test_what_comes_after_the_start_belongs_to_the_next_restart() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).write("b").at(17).succeed()
    run.then_pending(writes=1).then_due(75, ev.Cause.QUIET)
    run.at(75).tick().then(that(ev.RestartQueued, from_position=3, to_position=5, writes=1))


def test_while_a_restart_is_unsettled_no_window_is_judged() -> None:
    run = scenario(quiet="0s", min_interval="0s").at(0).write("a").tick().at(1).write("b").then_not_due()
    run.tick().then_nothing().start().at(2).write("c").then_not_due().tick().then_nothing()
    run.at(3).fail().write("d").then_not_due().tick().then_nothing()


def test_quiet_is_judged_when_a_restart_is_queued_not_again_at_its_start() -> None:
    scenario().at(0).write("a").at(15).tick().at(16).write("b").start().then(ev.CycleStarted)


def test_a_queued_restart_keeps_its_numbers_when_the_policy_changes() -> None:
    run = scenario().at(0).write("a").at(15).tick().under(min_interval="10m", quiet="1m")
    run.at(16).tick().then_nothing().start().then(ev.CycleStarted)


def test_recorded_writes_are_in_no_count_and_cause_nothing() -> None:
    run = scenario(rules=[{"match": "*.log", "action": "record"}]).at(0).write("a", "b.log").at(15).tick()
    run.then(that(ev.RestartQueued, writes=1, files=1, to_position=2))


def test_a_child_that_ended_by_itself_covers_nothing_and_opens_no_window() -> None:
    run = scenario().at(0).write("a")
    before = run.state
    run.at(5).record([ev.ProcessExited(exit_code=1, signal=None, respawn_after_ms=1_000)])
    assert run.state == before
    assert run.log[-1].version is None


def test_a_doubled_tick_finds_nothing_left() -> None:
    scenario().at(0).write("a").at(15).tick().then(ev.RestartQueued).tick().then_nothing()


# --- registration


def test_registering_the_same_again_records_nothing() -> None:
    scenario(registered=False).registered().then(ev.WorkspaceRegistered).registered().then_nothing()


def test_a_changed_registration_is_recorded() -> None:
    run = scenario().registered(fleet="blue").then(that(ev.WorkspaceChanged, fleet="blue"))
    assert run.state.version == 2


@pytest.mark.parametrize(
    "command",
    [
        cmd.Hold(reason="x"),
        cmd.Release(reason="x"),
        cmd.Remove(reason="x"),
        cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="x"),
        cmd.ReportProbe(healthy=False),
        cmd.Cancel(restart="rst_1", reason="x"),
    ],
)
def test_an_unregistered_workspace_refuses_what_people_ask(command: cmd.Command) -> None:
    run = scenario(registered=False)
    with pytest.raises(NotFound, match="'ws-1' is not registered"):
        decide(run.state, command, policy(), run.now)


def test_an_unregistered_workspace_has_nothing_to_tick_or_start() -> None:
    scenario(registered=False).tick().then_nothing().start().then_nothing()
    assert REGISTRATION.fleet == "default"


# --- what people see


def test_a_workspaces_state_is_the_first_that_holds() -> None:
    run = scenario(registered=False, max_attempts=2).then_phase(Phase.REMOVED)
    run.registered().then_phase(Phase.IDLE).at(0).write("a").then_phase(Phase.WINDOW_OPEN)
    run.at(15).tick().then_phase(Phase.QUEUED).start().then_phase(Phase.RUNNING).hold().then_phase(Phase.RUNNING)
    run.at(16).fail(jitter=0).then_phase(Phase.HELD).release().then_phase(Phase.RETRYING)
    run.at(17).start().at(18).fail().then_phase(Phase.BACKING_OFF).write("b").then_phase(Phase.BACKING_OFF)
    run.remove().then_phase(Phase.REMOVED)
