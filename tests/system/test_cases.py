"""The cases that made this product, each against the real service: ``up`` on SQLite, and PostgreSQL with Redis.

Nothing here depends on how fast the machine is: what must hold is read from the log's own instants.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from orchestrator.domain import events as ev
from tests.system.deployment import TICK_S, Deployment
from tests.system.history import History
from tests.waiting import wait_until

PATIENT_S = 0.8
PATIENT = {"quiet": f"{PATIENT_S}s", "max_wait": "30s"}
"""A window that stays open over a burst of requests on a busy machine."""


def spans(history: History) -> list[int]:
    """How many writes each restart's successful cycle covers."""
    return [sum(cycle.covers(write.position) for write in history.writes) for cycle in history.successes]


def test_the_first_write_restarts(deployment: Deployment) -> None:
    workspace = deployment.register()

    (answer,) = deployment.write(workspace, "app.py")

    history = deployment.settled(workspace, restarts=1)
    assert answer["decision"] == "opened_window"
    assert history.queued[0].cause is ev.Cause.QUIET
    assert [cycle.start.attempt for cycle in history.covering(answer["position"])] == [1]


def test_a_second_write_inside_the_window_is_folded_and_does_not_move_its_start(deployment: Deployment) -> None:
    workspace = deployment.register(policy={"quiet": "30s", "max_wait": "700ms"})

    first, second = deployment.write(workspace, "a", "b")

    history = deployment.settled(workspace, restarts=1)
    (queued,) = history.queued
    assert (first["decision"], second["decision"]) == ("opened_window", "folded")
    assert first["due_at"] == second["due_at"]
    assert queued.cause is ev.Cause.MAX_WAIT
    assert queued.opened_at == history.writes[0].recorded_at
    assert queued.due_at - queued.opened_at == timedelta(milliseconds=700)
    assert spans(history) == [2]


def test_bursts_of_10_and_17_writes_give_exactly_one_restart_with_all_in_its_range(deployment: Deployment) -> None:
    bursts = {deployment.register(policy=PATIENT): count for count in (10, 17)}

    last = {
        workspace: deployment.write(workspace, *(f"src/{number}.py" for number in range(count)))[-1]
        for workspace, count in bursts.items()
    }

    for workspace, count in bursts.items():
        history = deployment.settled(workspace, restarts=1)
        (queued,) = history.queued
        assert (queued.writes, queued.files) == (count, count)
        assert (queued.from_position, queued.to_position) == (1, last[workspace]["position"])
        assert spans(history) == [count]


def test_a_write_after_the_window_gives_a_second_restart(deployment: Deployment) -> None:
    workspace = deployment.register()
    deployment.write(workspace, "first")
    before = deployment.settled(workspace, restarts=1)

    deployment.write(workspace, "second")

    history = deployment.settled(workspace, restarts=2)
    assert history.queued[1].from_position == before.queued[0].to_position + 1
    assert spans(history) == [1, 1]


def test_two_workspaces_have_windows_of_their_own(deployment: Deployment) -> None:
    one, other = (deployment.register(policy=PATIENT) for _ in range(2))

    deployment.write(one, "a")
    (answer,) = deployment.write(other, "b")

    assert answer["decision"] == "opened_window"
    for workspace in (one, other):
        history = deployment.settled(workspace, restarts=1)
        (queued,) = history.queued
        assert queued.opened_at == queued.last_write_at == history.writes[0].recorded_at
        assert queued.due_at - queued.opened_at == timedelta(seconds=PATIENT_S)


def test_a_slow_restart_of_one_workspace_never_delays_another(deployment: Deployment) -> None:
    slow = deployment.register(delay="60s")
    fast = deployment.register()
    deployment.write(slow, "a")
    deployment.await_running(slow)

    deployment.write(fast, "b")

    (queued,) = deployment.settled(fast, restarts=1).queued
    assert deployment.history(slow).running is not None
    assert queued.due_at - queued.opened_at == timedelta(milliseconds=200)
    deployment.client.remove(slow)
    deployment.settled(slow, restarts=1)


def test_fifty_writers_at_once_give_exactly_one_restart(deployment: Deployment) -> None:
    workspace = deployment.register(policy=PATIENT)

    answers = deployment.client.write_all(workspace, [f"f{number}" for number in range(50)], at_once=50)

    history = deployment.settled(workspace, restarts=1)
    assert Counter(answer["decision"] for answer in answers) == {"opened_window": 1, "folded": 49}
    assert spans(history) == [50]


def test_every_drained_iteration_has_a_new_later_stamp_that_is_recorded(deployment: Deployment) -> None:
    workspace = deployment.register(delay="350ms", policy={"quiet": "50ms", "min_interval": "200ms"})
    deployment.write(workspace, "first")
    cycle = deployment.await_running(workspace)
    for path in ("second", "third"):
        deployment.write(workspace, path)
        cycle = deployment.await_running(workspace, after=cycle)

    history = deployment.settled(workspace, restarts=3)

    stamps = [start.started_at for start in history.starts]
    assert stamps == sorted(set(stamps))
    assert stamps == [event.recorded_at for event in history.recorded(ev.CycleStarted)]
    assert max(start.iteration for start in history.starts) >= 2, "no cycle was drained by the slot of the one before"


def test_what_arrives_during_a_cycle_is_covered_by_exactly_one_later_cycle(deployment: Deployment) -> None:
    counts = {deployment.register(delay="500ms", policy={"min_interval": "500ms"}): count for count in (1, 25)}
    for workspace in counts:
        deployment.write(workspace, "first")
    for workspace in counts:
        deployment.await_running(workspace)

    late = {
        workspace: deployment.client.write_all(workspace, [f"late{number}" for number in range(count)], at_once=count)
        for workspace, count in counts.items()
    }

    for workspace, answers in late.items():
        history = deployment.settled(workspace, restarts=2)
        first, second = history.cycles
        assert first.ended_at is not None
        assert second.start.started_at >= first.ended_at
        assert all(history.covering(answer["position"]) == [second] for answer in answers)


def test_a_write_past_the_spacing_into_a_running_slow_cycle_gives_one_more_never_a_chain(
    deployment: Deployment,
) -> None:
    spacing, policy = timedelta(milliseconds=500), {"quiet": "50ms", "min_interval": "500ms"}
    workspace = deployment.register(delay="900ms", policy=policy)
    deployment.write(workspace, "first")
    running = deployment.await_running(workspace)
    deployment.change(workspace, delay="200ms", policy=policy)
    deployment.await_clock(running.start.started_at + spacing)

    (answer,) = deployment.write(workspace, "late")

    history = deployment.settled(workspace, restarts=2)
    first, second = history.cycles
    assert first.ended_at is not None
    assert history.writes[1].recorded_at < first.ended_at, "the write must meet the running cycle"
    assert first.start.to_position < answer["position"] <= second.start.to_position
    assert second.start.started_at >= first.start.started_at + spacing


def test_an_out_of_window_write_into_a_still_draining_cycle_waits_for_the_newest_stamp(deployment: Deployment) -> None:
    """The test that was never written: the gate counts from the drained iteration, not from the first cycle."""
    spacing = timedelta(milliseconds=800)
    policy = {"quiet": "50ms", "min_interval": "800ms"}
    workspace = deployment.register(delay="900ms", policy=policy)
    deployment.write(workspace, "first")
    first = deployment.await_running(workspace)
    deployment.write(workspace, "second")
    deployment.change(workspace, delay="400ms", policy=policy)
    second = deployment.await_running(workspace, after=first)

    deployment.write(workspace, "third")

    history = deployment.settled(workspace, restarts=3)
    drained, last = history.cycles[1:]
    written = history.writes[2].recorded_at
    assert drained.start.cycle == second.start.cycle
    assert drained.ended_at is not None
    assert written >= first.start.started_at + spacing, "the write must be out of the first cycle's window"
    assert drained.start.started_at < written < drained.ended_at, "the write must meet the draining cycle"
    assert last.start.started_at >= drained.start.started_at + spacing


def test_a_probe_starts_nothing_during_a_cycle_or_while_settling_and_restarts_afterwards(
    deployment: Deployment,
) -> None:
    settle = timedelta(milliseconds=600)
    workspace = deployment.register(delay="400ms", policy={"min_interval": "100ms", "settle": "600ms"})
    deployment.write(workspace, "first")
    deployment.await_running(workspace)
    during = deployment.client.probe(workspace)
    history = deployment.settled(workspace, restarts=1)
    settling = deployment.client.probe(workspace)
    ended_at = history.cycles[0].ended_at
    assert ended_at is not None
    deployment.await_clock(ended_at + settle)

    afterwards = deployment.client.probe(workspace)

    history = deployment.settled(workspace, restarts=2)
    assert during == ("suppressed", "cycle_running")
    assert settling == ("suppressed", "settling")
    assert afterwards == ("requested", None)
    assert [data.reason.value for data in history.of(ev.ProbeSuppressed)] == ["cycle_running", "settling"]
    assert [queued.cause for queued in history.queued] == [ev.Cause.QUIET, ev.Cause.PROBE]


def test_five_probes_in_a_row_against_a_booting_workspace_give_no_extra_restart(deployment: Deployment) -> None:
    workspace = deployment.register(delay="700ms")
    deployment.write(workspace, "first")
    deployment.await_running(workspace)

    decisions = [deployment.client.probe(workspace) for _ in range(5)]

    history = deployment.settled(workspace, restarts=1)
    assert decisions == [("suppressed", "cycle_running")] * 5
    assert len(history.of(ev.ProbeSuppressed)) == 5


def test_a_mutation_inside_the_settle_time_is_never_suppressed(deployment: Deployment) -> None:
    workspace = deployment.register(policy={"settle": "60s", "min_interval": "800ms"})
    deployment.write(workspace, "first")
    before = deployment.settled(workspace, restarts=1)

    answer = deployment.client.restart(workspace, "mutation")

    assert deployment.client.probe(workspace) == ("suppressed", "settling")
    history = deployment.settled(workspace, restarts=2)
    assert history.queued[1].cause is ev.Cause.MUTATION
    assert history.covering(answer["position"]) == [history.cycles[1]]
    spacing = history.cycles[1].start.started_at - before.cycles[0].start.started_at
    assert spacing >= timedelta(milliseconds=800)


def test_manual_requests_during_a_running_cycle_wait_and_then_run_once(deployment: Deployment) -> None:
    workspace = deployment.register(delay="500ms", policy={"min_interval": "60s"})
    deployment.write(workspace, "first")
    running = deployment.await_running(workspace)

    answers = [deployment.client.restart(workspace, "manual") for _ in range(3)]

    history = deployment.settled(workspace, restarts=2)
    first, second = history.cycles
    assert first.start.cycle == running.start.cycle
    assert first.ended_at is not None
    assert second.start.started_at >= first.ended_at
    assert history.queued[1].cause is ev.Cause.MANUAL
    assert all(history.covering(answer["position"]) == [second] for answer in answers)


def test_an_executor_that_raises_is_tried_again_and_locks_nothing_out(deployment: Deployment) -> None:
    workspace = deployment.register(fail_first=2, error_kind="unknown")

    (answer,) = deployment.write(workspace, "first")

    history = deployment.settled(workspace, restarts=1)
    assert [start.attempt for start in history.starts] == [1, 2, 3]
    assert [type(cycle.end) for cycle in history.cycles] == [ev.CycleFailed, ev.CycleFailed, ev.CycleSucceeded]
    assert history.covering(answer["position"]) == [history.cycles[2]]


def test_an_executor_that_fails_for_good_gives_up_loudly_and_the_next_write_restarts(deployment: Deployment) -> None:
    policy = {"give_up_backoff": "60s", "min_interval": "300ms"}
    workspace = deployment.register(fail_first=1, error_kind="permanent", policy=policy)
    (lost,) = deployment.write(workspace, "first")
    wait_until(lambda: deployment.history(workspace).of(ev.RestartGaveUp), what="the restart is given up")

    (newer,) = deployment.write(workspace, "second")

    history = deployment.settled(workspace, restarts=2)
    assert [type(cycle.end) for cycle in history.cycles] == [ev.CycleFailed, ev.CycleSucceeded]
    for answer in (lost, newer):
        assert history.covering(answer["position"]) == [history.cycles[1]]


def test_held_written_to_and_released_gives_one_restart(deployment: Deployment) -> None:
    workspace, marker = deployment.register(), deployment.register()
    deployment.client.hold(workspace)
    answers = deployment.write(workspace, "a", "b", "c")
    deployment.write(marker, "later")
    deployment.settled(marker, restarts=1)
    while_held = deployment.history(workspace).queued

    deployment.client.release(workspace)

    history = deployment.settled(workspace, restarts=1)
    assert [answer["decision"] for answer in answers] == ["held"] * 3
    assert while_held == [], "a window of the same length, opened later, was folded already"
    assert spans(history) == [3]


def test_a_removed_workspace_has_its_pending_writes_waived_by_name(deployment: Deployment) -> None:
    workspace, marker = deployment.register(policy=PATIENT), deployment.register(policy=PATIENT)
    answers = deployment.write(workspace, "a", "b")

    deployment.client.remove(workspace)

    deployment.write(marker, "later")
    deployment.settled(marker, restarts=1)
    history = deployment.settled(workspace, restarts=0)
    (waived,) = history.of(ev.WritesWaived)
    assert (waived.reason, waived.writes) == (ev.Waiver.WORKSPACE_REMOVED, 2)
    assert (waived.from_position, waived.to_position) == (1, answers[1]["position"])
    assert history.pending == []


def test_with_every_slot_hung_a_tick_still_queues_and_the_first_free_slot_takes_the_oldest(
    deployment: Deployment,
) -> None:
    hung = [deployment.register(hang_first=1) for _ in range(4)]
    older, newer = deployment.register(delay="300ms"), deployment.register(delay="300ms")
    for workspace in hung:
        deployment.write(workspace, "a")
    for workspace in hung:
        deployment.await_running(workspace)

    for workspace in (older, newer):
        deployment.write(workspace, "b")
        deployment.await_queued(workspace)
    queued = [deployment.history(workspace).recorded(ev.RestartQueued)[0] for workspace in (older, newer)]
    waiting = [deployment.history(workspace).starts for workspace in (older, newer)]
    deployment.client.remove(hung[0])

    first, second = (deployment.settled(workspace, restarts=1) for workspace in (older, newer))
    assert waiting == [[], []]
    for event in queued:
        assert isinstance(event.data, ev.RestartQueued)
        assert event.recorded_at - event.data.due_at < timedelta(seconds=TICK_S + 0.5), "a tick waited for a restart"
    assert first.starts[0].started_at < second.starts[0].started_at
    for workspace in hung[1:]:
        deployment.client.remove(workspace)
    for workspace in hung:
        deployment.settled(workspace, restarts=1)
