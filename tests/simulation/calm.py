"""After the healing, some minutes of calm: new writes with nothing broken, where the bounds of L1 and L2 are tight.

Under faults a late restart has its excuse. Here there is none, but for one worker that may be killed at its cycle: its
lease must pass and the cycle go on elsewhere within ``lease`` and a tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random

from orchestrator.domain.policy import Policy
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.state import WorkspaceState
from tests.simulation.hub import SECOND
from tests.simulation.work import Action
from tests.simulation.world import World

_LOOK = SECOND // 4
_LONGEST = 1_200 * SECOND
_AWAY = 2 * SECOND


@dataclass(frozen=True, kw_only=True)
class Killing:
    """A cycle whose worker was killed, when that was by the database's time, and the lease it was given.

    ``stopped``: it was asked to stop instead, and gives back what its grace does not see the end of.
    """

    cycle: str
    at: datetime
    lease_ms: int
    stopped: bool


@dataclass(frozen=True, kw_only=True)
class Calm:
    """``position``: what is recorded after it was recorded with nothing broken. ``settled``: nothing waits any more."""

    position: int
    killing: Killing | None
    settled: bool
    workspace: str


def live_calmly(world: World) -> Calm | None:
    """Let one workspace be written to, and wait until nothing waits; None if there is no workspace left."""
    rng, hub = Random(f"{world.plan.seed} calm"), world.hub
    there = [state for state in world.states() if state.registered and state.hold is None]
    if not there:
        return None
    state = rng.choice(there)
    policy, position = _policy(world, state), world.log_length()
    world.executor.healthy_takes = _act_takes(policy, rng)
    last = _plan_writes(world, state.workspace, policy, rng)
    killing = _kill_one(world, state.workspace, policy, last) if rng.random() < 0.4 else None
    hub.run(max(hub.now, last))
    ends = hub.now + _LONGEST
    while hub.now < ends and _waits(world):
        hub.run(hub.now + SECOND)
    return Calm(position=position, killing=killing, settled=not _waits(world), workspace=state.workspace)


def _policy(world: World, state: WorkspaceState) -> Policy:
    with world.store.memory.read() as reader:
        return policy_in_force(state, reader.policies())


def _act_takes(policy: Policy, rng: Random) -> int:
    """Return how long a restart takes: shorter than its timeout, often longer than its lease."""
    most_ms = min(policy.cycle_timeout_ms * 0.7, policy.lease_ms * 1.6)
    return round(rng.choice((0.1, 1.0)) * most_ms * SECOND / 1000)


def _plan_writes(world: World, workspace: str, policy: Policy, rng: Random) -> int:
    """Plan steady writes, closer together than the quiet, or one burst; return when the last one comes."""
    at, every = world.hub.now, min(policy.quiet_ms * 0.7, 9_000) * SECOND / 1000
    steady = rng.random() < 0.6
    for number in range(rng.choice((2, 5, 9))):
        action = Action(at=at, kind="write", workspace=workspace, size=1 if steady else 4, draw=rng.randrange(1 << 30))
        world.hub.call_at(at, partial(world.clients.start, action))
        at += round(every) if steady else SECOND // 3 * (number % 2)
    return at


def _kill_one(world: World, workspace: str, policy: Policy, until: int) -> Killing | None:
    """Kill the worker of the workspace's next cycle while it is at work."""
    hub = world.hub
    ends = until + (policy.max_wait_ms + policy.min_interval_ms) * SECOND // 1000
    while hub.now < ends:
        hub.run(hub.now + _LOOK)
        state = world.state(workspace)
        cycle = None if state is None else state.cycle
        worker = next((one for one in world.workers if cycle is not None and one.process.name == cycle.worker), None)
        if cycle is not None and worker is not None and not worker.process.dead:
            stopped = len(world.workers) > 1 and Random(f"{world.plan.seed} calm stop").random() < 0.5
            killing = Killing(cycle=cycle.id, at=world.store_time(), lease_ms=policy.lease_ms, stopped=stopped)
            if stopped:
                world.stop(worker)
            else:
                world.kill(worker.process, _AWAY)
            return killing
    return None


def _waits(world: World) -> bool:
    return bool(world.clients.process.threads) or any(
        state.pending or state.restart is not None for state in world.states()
    )
