"""What one seed means: who there is, under which numbers, who writes what when, and which faults strike.

Everything here is drawn before the run, so that a story can be shrunk by leaving parts of it out. Swarm testing:
each seed takes only some kinds of faults and of work, and each of them at its own strength.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from orchestrator.domain.policy import PolicyPatch
from tests.simulation.boundaries import ALL
from tests.simulation.faults import AT_BOUNDARIES, AT_TIMES, OF_EXECUTORS, OF_MESSAGES, Fault
from tests.simulation.hub import SECOND
from tests.simulation.policies import draw_layers, draw_policy
from tests.simulation.work import Action, draw_special_work, draw_work

MINUTE = 60 * SECOND
SHORTEST = 30 * MINUTE
"""A run lasts at least this long, in simulated time."""


_LENGTHS = (20, 27, 27, 35, 50, 90, 200, 400)
"""Minutes under faults. Long runs see what only hours bring about: back-offs that double up to one."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A fault at a time. ``amount``: for how long or how far, in microseconds; ``of``: whom it hits."""

    at: int
    fault: Fault
    amount: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A crash or freeze at the ``nth`` crossing of one boundary by name."""

    boundary: int
    nth: int
    fault: Fault
    amount: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. ``chance``: that a boundary fault strikes at a crossing; ``shares``: which one then."""

    seed: int
    length: int
    names: tuple[str, ...]
    own_policies: Mapping[str, PolicyPatch]
    layers: Mapping[str, PolicyPatch]
    workers: int
    slots: int
    running_most: int | None
    tick: int
    beats: int
    actions: tuple[Action, ...]
    rewrites: Mapping[str, int]
    """How many of a workspace's restarts write files themselves."""
    chance: float
    shares: Mapping[Fault, float]
    aims: tuple[Aim, ...]
    strikes: tuple[Strike, ...]
    messages: Mapping[Fault, float]
    executors: Mapping[Fault, float]
    act_takes: int
    """The longest time of a restart that goes well, in microseconds."""


def draw_plan(seed: int, off: frozenset[str] = frozenset()) -> Plan:
    """Return the plan of a seed, without the faults and the kinds of work named in ``off``.

    Each part has its own random numbers, so that leaving one out leaves the others as they were.
    """
    shape = Random(f"{seed} shape")
    names = tuple(f"ws-{number}" for number in range(1, shape.choice((3, 3, 3, 4, 4, 6)) + 1))
    length = round(shape.choice(_LENGTHS) * MINUTE * shape.uniform(0.9, 1.1))
    faults = Random(f"{seed} faults")
    strikes = _strikes(faults, length)
    actions, rewrites = draw_work(Random(f"{seed} work"), names, length)
    special = draw_special_work(Random(f"{seed} special"), names, length)
    policies = Random(f"{seed} policies")
    plan = Plan(
        seed=seed,
        length=length,
        names=names,
        own_policies={name: draw_policy(policies) for name in names if policies.random() < 0.6},
        layers=draw_layers(policies),
        workers=shape.choice((1, 2, 2, 2, 3)),
        slots=shape.choice((1, 2, 2, 4)),
        running_most=shape.choice((None, None, None, 1, 2)),
        tick=SECOND,
        beats=shape.choice((1, 1, 2)),
        actions=tuple(sorted((*actions, *special), key=lambda action: action.at)),
        rewrites=rewrites,
        chance=faults.choice((0.0, 0.002, 0.006, 0.015, 0.04)),
        shares=_shares(faults, AT_BOUNDARIES, 0.6),
        aims=_aims(faults),
        strikes=strikes,
        messages={kind: faults.uniform(0.02, 0.4) for kind in OF_MESSAGES if faults.random() < 0.4},
        executors=_shares(faults, OF_EXECUTORS, 0.3),
        act_takes=round(faults.choice((0.1, 2, 10, 25, 40)) * SECOND),
    )
    return plan if not off else without(plan, off)


def _shares(rng: Random, kinds: tuple[Fault, ...], present: float) -> dict[Fault, float]:
    return {kind: rng.uniform(0.05, 1.0) for kind in kinds if rng.random() < present}


def _strikes(rng: Random, length: int) -> tuple[Strike, ...]:
    """Draw the faults at times; at least one, early enough that it strikes whatever else happens."""
    kinds = [kind for kind in AT_TIMES if rng.random() < 0.35] or [rng.choice(AT_TIMES)]
    strikes = []
    for kind in kinds:
        for _ in range(rng.choice((1, 1, 2, 3))):
            strikes.append(
                Strike(at=rng.randrange(SECOND, length), fault=kind, amount=_amount(rng), of=rng.randrange(6))
            )
    return tuple(sorted(strikes, key=lambda strike: strike.at))


def _amount(rng: Random) -> int:
    return round(rng.choice((0.5, 3, 12, 40, 120)) * rng.uniform(0.2, 1.0) * SECOND)


def _aims(rng: Random) -> tuple[Aim, ...]:
    kinds = (Fault.CRASH, Fault.CRASH, Fault.FREEZE)
    return tuple(
        Aim(
            boundary=rng.randrange(len(ALL)), nth=rng.choice((1, 2, 3, 6)), fault=rng.choice(kinds), amount=_amount(rng)
        )
        for _ in range(rng.choice((0, 1, 2, 3)))
    )


def without(plan: Plan, off: frozenset[str]) -> Plan:
    """Return the plan without the faults and kinds of work that ``off`` names."""

    def kept(shares: Mapping[Fault, float]) -> dict[Fault, float]:
        return {kind: share for kind, share in shares.items() if kind.value not in off}

    shares = kept(plan.shares)
    return _replace(
        plan,
        chance=plan.chance if shares and "boundaries" not in off else 0.0,
        shares=shares,
        aims=tuple(aim for aim in plan.aims if f"aimed {aim.fault}" not in off),
        strikes=tuple(strike for strike in plan.strikes if strike.fault.value not in off),
        messages=kept(plan.messages),
        executors=kept(plan.executors),
        beats=1 if Fault.SECOND_BEAT.value in off else plan.beats,
        actions=tuple(action for action in plan.actions if action.kind not in off and action.workspace not in off),
        rewrites={} if "rewrites" in off else plan.rewrites,
    )


def _replace(plan: Plan, **changes: object) -> Plan:
    values = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    return Plan(**(values | changes))


def parts(plan: Plan) -> list[str]:
    """Return what can be left out of a plan, the largest parts first."""
    found: list[str] = ["boundaries", "rewrites", Fault.SECOND_BEAT.value]
    found += sorted({f"aimed {aim.fault}" for aim in plan.aims})
    found += sorted({strike.fault.value for strike in plan.strikes})
    found += [kind.value for shares in (plan.messages, plan.executors, plan.shares) for kind in shares]
    found += sorted({action.kind for action in plan.actions})
    found += list(plan.names)
    return found
