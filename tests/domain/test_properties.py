"""The promises of CONTRACT section 4 over random policies, bursts, people, and workers that fail, die or freeze.

A world that breaks a promise is shown as it was found. ``TEST_PROPERTIES=thorough`` looks at twenty times as
many worlds and shrinks what it finds, which takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action, Policy
from orchestrator.errors import Conflict, NotFound
from tests.domain.given_when_then import Scenario, policy, seconds
from tests.domain.promises import assert_safe, inside
from tests.domain.virtual_time import Cycle, End, World
from tests.thorough import THOROUGH, examples

pytestmark = pytest.mark.timeout(3_600 if THOROUGH else 120)


def worlds(count: int) -> settings:
    return settings(
        max_examples=examples(count),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if THOROUGH else [])],
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


RULES = (
    {"match": "*.log", "action": "record"},
    {"match": "docs/**", "action": "reload", "quiet": "3s"},
    {"match": "slow/**", "quiet": "25s", "max_wait": "40s"},
)
PATHS = ("a.py", "b.py", "x.log", "docs/a", "slow/a")


def spans(least: int, most: int) -> st.SearchStrategy[str]:
    """Durations as people write them, to the half second."""
    return st.integers(least * 2, most * 2).map(lambda halves: f"{halves * 500}ms")


POLICIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "quiet": spans(0, 30),
        "max_wait": spans(1, 90),
        "max_count": st.sampled_from([1, 3, 8, 10_000]),
        "edge": st.sampled_from(["trailing", "leading"]),
        "min_interval": spans(0, 90),
        "settle": spans(0, 40),
        "max_attempts": st.integers(1, 3),
        "retry_backoff": spans(0, 10),
        "retry_backoff_max": spans(1, 30),
        "give_up_backoff": spans(1, 60),
        "lease": spans(2, 30),
        "rules": st.sampled_from([(), RULES]),
        "mode": st.sampled_from(["live", "live", "live", "shadow"]),
    }
)
CYCLES = st.lists(
    st.builds(
        Cycle,
        seconds=st.sampled_from([0, 0.5, 1, 7, 20, 45, 90]),
        end=st.sampled_from(End),
        jitter=st.sampled_from([0.0, 0.5, 0.99]),
    ),
    max_size=12,
)
GAPS = st.one_of(st.sampled_from([0, 0, 0.25, 1, 2.5]), st.integers(0, 240).map(lambda halves: halves / 2))


@dataclass(frozen=True)
class Step:
    """After ``gap`` seconds somebody does this."""

    gap: float
    what: str
    paths: tuple[str, ...] = ()
    number: int = 0
    policy: dict[str, Any] | None = None


WRITES = st.builds(
    Step, gap=GAPS, what=st.just("write"), paths=st.lists(st.sampled_from(PATHS), min_size=1, max_size=6).map(tuple)
)
SOON = st.sampled_from([0.25, 1, 2.5])
"""Short enough to fall into the cycle that was just started."""
REQUESTS = st.builds(Step, gap=SOON | GAPS, what=st.sampled_from(["manual", "mutation", "probe", "healthy probe"]))
MEDDLING = st.builds(
    Step,
    gap=GAPS,
    what=st.sampled_from(
        [
            "hold",
            "hold until",
            "release",
            "cancel",
            "cancel",
            "remove",
            "register",
            "tick",
            "repeat a report",
            "nobody",
            "nobody",
            "policy",
        ]
    ),
    number=st.integers(1, 60),
    policy=POLICIES,
)


def do(run: Scenario, world: World, step: Step) -> None:
    """Carry out one step; what it refuses, it refuses for a reason that the state shows."""
    actions: dict[str, Callable[[], object]] = {
        "manual": run.manual,
        "mutation": run.mutation,
        "probe": run.probe,
        "healthy probe": lambda: run.probe(healthy=True),
        "hold": run.hold,
        "hold until": lambda: run.hold(until=seconds(run.now) + step.number),
        "release": run.release,
        "cancel": lambda: run.cancel(run.state.restart.id if run.state.restart else "rst_0"),
        "remove": run.remove,
    }
    if step.what in actions:
        _ask(run, step.what, actions[step.what])
    elif step.what == "write" and run.state.registered:
        run.write(*step.paths)
    elif step.what == "register":
        run.registered()
    elif step.what == "tick":
        run.tick()
    elif step.what == "policy" and step.policy is not None:
        run.under(**step.policy)
    elif step.what == "nobody":
        world.nobody_until(seconds(run.now) + step.number)
    elif step.what == "repeat a report" and run.of_type(ev.CycleStarted):
        started = run.of_type(ev.CycleStarted)
        live = run.state.cycle.id if run.state.cycle else None
        past = [cycle for cycle in started if cycle.cycle != live]
        if past:
            end = list(End)[step.number % len(End)]
            world.report(past[step.number % len(past)], Cycle(end=end))


def _ask(run: Scenario, what: str, action: Callable[[], object]) -> None:
    state, before = run.state, len(run.log)
    if not state.registered:
        with pytest.raises(NotFound):
            action()
    elif what == "cancel" and (state.restart is None or state.cycle is not None):
        with pytest.raises(Conflict):
            action()
    else:
        action()
        if what in ("manual", "mutation", "probe"):
            assert len(run.log) == before + 1, "S9: every trigger is an event"
        if what in ("manual", "mutation"):
            assert run.log[-1].type == "RestartRequested", "nothing but a probe is ever suppressed"


def played(in_force: Policy, steps: Sequence[Step], cycles: Sequence[Cycle], *, position_step: int = 1) -> World:
    run = Scenario(in_force, position_step=position_step).registered()
    world = World(run, cycles)
    at = 0.0
    for step in steps:
        at += step.gap
        world.run(at)
        do(run, world, step)
    return world


def healed(world: World, within: float) -> None:
    """People go home, workers come back and succeed: everything that waits is covered within so many seconds."""
    run = world.workspace
    world.nobody_until(0)
    if run.state.registered:
        run.release()
    world.tick_s = 5
    ends = seconds(run.now) + within
    while run.state.pending and seconds(run.now) < ends:
        world.run(seconds(run.now) + 50)
    assert not run.state.pending


@worlds(150)
@given(
    given_policy=POLICIES,
    steps=st.lists(st.one_of(WRITES, WRITES, REQUESTS, REQUESTS, MEDDLING), min_size=3, max_size=25),
    cycles=CYCLES,
    position_step=st.sampled_from([1, 7]),
)
def test_every_promise_of_safety_holds_and_nothing_gets_stuck(
    given_policy: dict[str, Any], steps: list[Step], cycles: list[Cycle], position_step: int
) -> None:
    world = played(policy(**given_policy), steps, cycles, position_step=position_step)
    run = world.workspace
    assert_safe(run)
    # Planned failures may still come, each followed by the longest wait there is after it.
    give_up_ms = run.policy.give_up_backoff_ms * 2 ** len(cycles)
    healed(world, within=1_000 + 200 * len(cycles) + min(give_up_ms, 3_600_000) / 1000 * (len(cycles) + 1))
    assert_safe(run)


@worlds(25)
@given(
    given_policy=POLICIES,
    steps=st.lists(WRITES, min_size=3, max_size=30),
    cycle_s=st.sampled_from([0.5, 5, 20, 70]),
)
def test_l1_every_write_is_covered_in_time_while_nothing_is_broken(
    given_policy: dict[str, Any], steps: list[Step], cycle_s: float
) -> None:
    world = played(policy(**given_policy), steps, [Cycle(cycle_s)] * 500)
    run = world.workspace
    world.run(seconds(run.now) + 400)
    assert_safe(run)
    starts = run.of_type(ev.CycleStarted)
    for index, event in enumerate(run.log):
        if not isinstance(event.data, ev.FileWritten) or event.data.action is Action.RECORD:
            continue
        covering = next(c for c in starts if inside([event.position], (c.from_position, c.to_position)))
        max_wait_ms = event.data.max_wait_ms or run.policy.max_wait_ms
        bound = max(max_wait_ms, run.policy.min_interval_ms) / 1000 + world.tick_s + _rest(run, index)
        assert seconds(covering.started_at) - seconds(event.recorded_at) <= bound


def _rest(run: Scenario, index: int) -> float:
    """For how long the restart that is unsettled at this event of the log stays so."""
    opened = False
    for event in run.log[:index]:
        if isinstance(event.data, ev.RestartQueued | ev.CycleSucceeded):
            opened = isinstance(event.data, ev.RestartQueued)
    ends = (e.recorded_at for e in run.log[index:] if isinstance(e.data, ev.CycleSucceeded))
    return seconds(next(ends)) - seconds(run.log[index].recorded_at) if opened else 0


@worlds(25)
@given(
    given_policy=POLICIES,
    steps=st.lists(st.one_of(WRITES, WRITES, REQUESTS), min_size=1, max_size=25),
    cycle_s=st.sampled_from([0.5, 5, 20, 70]),
)
def test_l4_when_writes_stop_at_most_one_restart_follows_the_running_one(
    given_policy: dict[str, Any], steps: list[Step], cycle_s: float
) -> None:
    world = played(policy(**given_policy), steps, [Cycle(cycle_s)] * 500)
    run = world.workspace
    stopped = len(run.log)
    world.run(seconds(run.now) + 600)
    after = [event for event in run.log[stopped:] if isinstance(event.data, ev.CycleStarted)]
    assert len(after) <= 1
    assert not run.state.pending


@worlds(25)
@given(
    given_policy=POLICIES,
    min_interval=spans(60, 600),
    restart_s=st.integers(0, 90),
    gaps=st.lists(st.floats(0, 1), min_size=16, max_size=16),
)
def test_the_recorded_incident_never_gives_more_than_two_restarts_if_min_interval_is_60_s_or_more(
    given_policy: dict[str, Any], min_interval: str, restart_s: int, gaps: list[float]
) -> None:
    """17 writes over 45 s, wherever within them they fall."""
    run = Scenario(policy(**given_policy | {"min_interval": min_interval, "rules": ()})).registered()
    world = World(run, [Cycle(restart_s)] * 9)
    whole = sum(gaps) or 1
    moments = [0.0, *(round(45 * sum(gaps[: n + 1]) / whole, 3) for n in range(16))]
    for number, moment in enumerate(moments):
        world.at(moment, partial(run.write, f"src/{number}.py"))
    world.run(2_000)
    assert_safe(run)
    assert 1 <= len(run.of_type(ev.CycleStarted)) <= 2
    run.then_pending()


@worlds(20)
@given(given_policy=POLICIES, steps=st.lists(WRITES, min_size=1, max_size=15), late=st.integers(0, 20))
def test_two_workers_may_claim_at_any_moment_and_only_one_gets_the_cycle(
    given_policy: dict[str, Any], steps: list[Step], late: int
) -> None:
    world = played(policy(**given_policy), steps, [])
    run = world.workspace
    world.run(seconds(run.now) + late)
    live = run.state.cycle
    started = run.start(worker="worker-2", capacity=cmd.Capacity(running=0)).led_to
    assert live is None or started == []
    assert_safe(run)
