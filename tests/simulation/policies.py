"""Policies drawn at random: the everyday ones, and the ones at the edges of what is legal."""

from __future__ import annotations

from random import Random

from orchestrator.domain.policy import DEFAULT_SCOPE, Action, Edge, Mode, PolicyPatch, Rule, fleet_scope

FLEETS = ("default", "blue")
_RULES = (
    Rule(match=("docs/**",), action=Action.RECORD),
    Rule(match=("conf/**",), action=Action.RELOAD, quiet_ms=1_000),
    Rule(match=("slow/**",), action=Action.RESTART, quiet_ms=40_000, max_wait_ms=90_000),
)
_PACES = (  # quiet, max_wait, min_interval
    (15_000, 60_000, 60_000),
    (15_000, 60_000, 60_000),
    (2_000, 10_000, 5_000),
    (500, 3_000, 0),
    (1_000, 2_000, 200),
    (5_000, 15_000, 90_000),
    (30_000, 120_000, 30_000),
    (20_000, 5_000, 10_000),
)


def draw_policy(rng: Random) -> PolicyPatch:
    """Return a workspace's own layer, or a fleet's: some of the numbers, the rest left open."""
    quiet_ms, max_wait_ms, min_interval_ms = rng.choice(_PACES)
    paced = rng.random() < 0.9
    return PolicyPatch(
        quiet_ms=quiet_ms if paced else None,
        max_wait_ms=max_wait_ms if paced else None,
        min_interval_ms=min_interval_ms if paced else None,
        max_count=rng.choice((2, 5, 17)) if rng.random() < 0.25 else None,
        edge=Edge.LEADING if rng.random() < 0.3 else None,
        settle_ms=rng.choice((0, 5_000, 60_000)) if rng.random() < 0.4 else None,
        cycle_timeout_ms=rng.choice((5_000, 20_000, 60_000)) if rng.random() < 0.7 else None,
        max_attempts=rng.choice((1, 2, 4)) if rng.random() < 0.5 else None,
        retry_backoff_ms=rng.choice((0, 1_000, 20_000)) if rng.random() < 0.5 else None,
        retry_backoff_max_ms=rng.choice((1_000, 60_000)) if rng.random() < 0.3 else None,
        give_up_backoff_ms=rng.choice((5_000, 30_000, 120_000)) if rng.random() < 0.8 else None,
        lease_ms=rng.choice((3_000, 8_000, 15_000)) if rng.random() < 0.7 else None,
        rules=_RULES if rng.random() < 0.35 else None,
        max_concurrent=rng.choice((1, 2)) if rng.random() < 0.15 else None,
        mode=Mode.SHADOW if rng.random() < 0.07 else None,
    )


def draw_layers(rng: Random) -> dict[str, PolicyPatch]:
    """Return the stored layers that the run begins with, beside the floor."""
    layers = {}
    if rng.random() < 0.4:
        layers[DEFAULT_SCOPE] = draw_policy(rng)
    if rng.random() < 0.3:
        layers[fleet_scope(FLEETS[1])] = draw_policy(rng)
    return layers
