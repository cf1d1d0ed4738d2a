"""One seed from its plan to its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from orchestrator.domain.canonical_line import canonical_lines
from orchestrator.domain.policy import Policy
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports.store import EventFilter
from tests.simulation.calm import Calm, live_calmly
from tests.simulation.fate import Runaway, Tally
from tests.simulation.hub import SECOND, Hub
from tests.simulation.judge import Evidence, Finding, judge
from tests.simulation.plan import SHORTEST, Plan
from tests.simulation.stand_ins import simulated
from tests.simulation.told import wrongly_told
from tests.simulation.world import World

_CLIENTS_END = 1200 * SECOND
_SETTLE_LOOK = 5 * SECOND
_RULES_MAX_WAIT_MS = 90_000
_SLACK = 30 * SECOND
"""For ticks, for a worker that was stopped to be replaced, and for one after the other where slots are few."""


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
    unanswered: int = 0
    calm: Calm | None = None


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
            if healing.settled_at is not None:
                healing.calm = live_calmly(world)
            hub.run(max(hub.now, SHORTEST))
        except Runaway:
            healing.runaway = True
        world.compare_rows()
        world.end()
    return _judged(world, healing)


def _heal(world: World, healing: Healing) -> None:
    """End all faults, let clients and stops come to an end, release what is held, and wait until nothing waits."""
    hub = world.hub
    world.heal()
    ends = hub.now + _CLIENTS_END
    while (world.clients.process.threads or world.stops) and hub.now < ends:
        hub.run(hub.now + SECOND)
    healing.unanswered = len(world.clients.process.threads)
    for name in _held(world):
        hub.spawn(world.clients.process, partial(world.clients.release, name), "release")
    hub.run(hub.now + SECOND)
    healing.quiet_at, healing.position, healing.bound = hub.now, world.log_length(), _bound(world)
    healing.settled_at = _settle(world, hub.now + healing.bound)


def _held(world: World) -> list[str]:
    """Return what somebody must release; the other holds end by themselves."""
    return [state.workspace for state in world.states() if state.hold is not None and state.hold.until is None]


def _held_too_long(world: World) -> list[str]:
    latest = world.store_time() - timedelta(microseconds=world.plan.tick + _SLACK)
    holds = {state.workspace: state.hold.until for state in world.states() if state.hold is not None}
    return [name for name, until in holds.items() if until is not None and until < latest]


def _bound(world: World) -> int:
    """Return within which time nothing may wait any more, by the numbers in force.

    What is at work when the last fault ends may still fail, at its timeout; what starts later succeeds at once.
    """
    with world.store.memory.read() as reader:
        policies, now = reader.policies(), world.store_time()
    rest_ms, works_ms, waits_ms = 0, 0, 0
    for state in world.states():
        policy = policy_in_force(state, policies)
        released_at = state.hold.until if state.hold is not None else None
        ready_at = state.restart.ready_at if state.restart is not None else None
        known = [at for at in (state.next_try_at, ready_at, released_at) if at is not None]
        rest_ms = max([rest_ms, *((at - now) // timedelta(milliseconds=1) for at in known)])
        if state.cycle is not None:
            works_ms = max(works_ms, _may_work_ms(world, state.cycle.id, policy), policy.lease_ms)
            rest_ms = max(rest_ms, _longest_backoff_ms(state, policy))
        waits_ms = max(waits_ms, policy.min_interval_ms, policy.max_wait_ms, _RULES_MAX_WAIT_MS)
    behind = max(0, -world.store.clock.offset)
    return (rest_ms + works_ms + waits_ms) * SECOND // 1000 + behind + _SLACK


def _may_work_ms(world: World, cycle: str, policy: Policy) -> int:
    """Return the longest that an open cycle may take: a later change of policy does not move its deadline."""
    _, timeout = world.watch.limits.get(cycle, (0, 0))
    return max(policy.cycle_timeout_ms, timeout * 1000 // SECOND)


def _longest_backoff_ms(state: WorkspaceState, policy: Policy) -> int:
    """Return how long a cycle that is at work now may put the next one off by failing."""
    doubled: int = policy.give_up_backoff_ms * 2 ** min(state.give_ups, 30)
    give_up_ms = min(max(3_600_000, policy.give_up_backoff_ms), doubled)
    return max(policy.retry_backoff_max_ms, give_up_ms)


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
        wrong = list(wrongly_told(reader, events))
    evidence = Evidence(
        events=events,
        acks=world.clients.acks,
        acts=world.outside.acts,
        ready=world.outside.ready,
        differences=list(world.differences.values()),
        written=world.clients.written,
        requested=world.clients.requested,
        seen=[
            *((promise, text) for (promise, _), text in world.seen.items()),
            *(("S3", text) for text in world.outside.untold),
        ],
        verifier=world.watch.verifier,
        unreadable=world.watch.unreadable,
        told_wrongly=wrong,
        deadlines=world.outside.deadlines,
        limits=world.watch.limits,
        permanent=world.outside.permanent,
        survivors=world.survivors,
        held_too_long=_held_too_long(world),
        running_most=world.plan.running_most,
        logged=world.logged,
        raised=[(thread.process.name, thread.name, error) for thread, error in hub.raised],
        quiet_position=healing.position,
        settled=healing.settled_at is not None,
        runaway=healing.runaway,
        unanswered=healing.unanswered,
        calm=healing.calm,
        tick=world.plan.tick,
        bound_s=healing.bound / SECOND,
        pools=world.pools,
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
