"""One seed from its plan to its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from orchestrator.audit.canonical_line import canonical_lines
from orchestrator.ports import EventFilter
from orchestrator.service.append import policy_of
from tests.simulation.fate import Runaway, Tally
from tests.simulation.hub import SECOND, Hub
from tests.simulation.judge import Evidence, Finding, judge
from tests.simulation.plan import SHORTEST, Plan
from tests.simulation.stand_ins import simulated
from tests.simulation.world import World

_CLIENTS_END = 1200 * SECOND
_SETTLE_LOOK = 5 * SECOND


@dataclass
class Outcome:
    """What became of a run. ``log`` is its export, byte for byte."""

    plan: Plan
    findings: list[Finding]
    tally: Tally
    log: bytes
    events: int
    simulated: int
    """How much time passed, in microseconds."""
    acknowledged: int
    unknown: int
    acts: int
    refused_acts: int
    healed_in: int
    """How long after the healing nothing waited any more."""
    bound: int
    story: list[str] = field(default_factory=list)


@dataclass
class Healing:
    """How the end of a run went. ``quiet_at``: the last fault and the last client were over, in microseconds."""

    quiet_at: int = 0
    position: int = 0
    bound: int = 0
    settled_at: int | None = None
    runaway: bool = False


def simulate(plan: Plan, *, story: bool = False) -> Outcome:
    """Run a plan to its end, heal it, and judge it."""
    hub = Hub()
    lines: list[str] | None = [] if story else None
    world = World(hub, plan, story=lines)
    healing = Healing()
    with simulated(hub, world.logged):
        try:
            world.begin()
            hub.run(plan.length)
            _heal(world, healing)
            hub.run(max(hub.now, SHORTEST))
        except Runaway:
            healing.runaway = True
        world.compare_rows()
        world.end()
    return _judged(world, healing)


def _heal(world: World, healing: Healing) -> None:
    """End all faults, let the clients come to an end, release what is held, and wait until nothing waits."""
    hub = world.hub
    world.heal()
    ends = hub.now + _CLIENTS_END
    while world.clients.process.threads and hub.now < ends:
        hub.run(hub.now + SECOND)
    for name in _held(world):
        hub.spawn(world.clients.process, partial(world.clients.release, name), "release")
    hub.run(hub.now + SECOND)
    healing.quiet_at, healing.position, healing.bound = hub.now, world.log_length(), _bound(world)
    healing.settled_at = _settle(world, hub.now + healing.bound)


def _held(world: World) -> list[str]:
    return [state.workspace for state in world.states() if state.hold is not None]


def _bound(world: World) -> int:
    """Return within which time nothing may wait any more, by the numbers in force."""
    with world.store.memory.read() as reader:
        policies, now = reader.policies(), reader.now()
    states = world.states()
    longest = timedelta(seconds=1)
    for state in states:
        policy = policy_of(state, policies)
        restart_ms = policy.cycle_timeout_ms + 30_000 + policy.lease_ms + policy.retry_backoff_max_ms
        give_up_ms = min(
            max(3_600_000, policy.give_up_backoff_ms), policy.give_up_backoff_ms * 2 ** min(state.give_ups, 30)
        )
        waits_ms = max(policy.max_wait_ms, policy.min_interval_ms, policy.quiet_ms, 90_000)
        known = [at for at in (state.next_try_at, state.ready_at) if at is not None]
        rest = max([timedelta(0), *(at - now for at in known)])
        longest = max(longest, rest + timedelta(milliseconds=2 * restart_ms + give_up_ms + 2 * waits_ms))
    behind = max(0, -world.store.clock.offset)
    return round(longest / timedelta(microseconds=1)) + behind + 10 * SECOND * len(states)


def _settle(world: World, latest: int) -> int | None:
    """Run until nothing waits; return when that was, or None if it still does at ``latest``."""
    hub = world.hub
    while any(state.pending or state.restart is not None for state in world.states()):
        if hub.now >= latest:
            return None
        hub.run(min(latest, hub.now + _SETTLE_LOOK))
    return hub.now


def _judged(world: World, healing: Healing) -> Outcome:
    hub = world.hub
    with world.store.memory.read() as reader:
        events = reader.stored_events(EventFilter(limit=1_000_000))
    evidence = Evidence(
        events=events,
        acks=world.clients.acks,
        acts=world.outside.acts,
        ready=world.outside.ready,
        differences=list(world.differences.values()),
        written=world.clients.written,
        requested=world.clients.requested,
        running_most=world.plan.running_most,
        logged=world.logged,
        raised=[(thread.process.name, thread.name, error) for thread, error in hub.raised],
        quiet_position=healing.position,
        settled=healing.settled_at is not None,
        runaway=healing.runaway,
        bound_s=healing.bound / SECOND,
        waiting=[state.workspace for state in world.states() if state.pending or state.restart is not None],
    )
    return Outcome(
        plan=world.plan,
        findings=judge(evidence),
        tally=world.fate.tally,
        log=canonical_lines(events),
        events=len(events),
        simulated=hub.now,
        acknowledged=len(world.clients.acks),
        unknown=world.clients.unknown,
        acts=len(world.outside.acts),
        refused_acts=world.outside.refused,
        healed_in=(hub.now if healing.settled_at is None else healing.settled_at) - healing.quiet_at,
        bound=healing.bound,
        story=world.fate.story or [],
    )
