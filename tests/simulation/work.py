"""What clients do and when: writes in every rhythm, requests, holds, cancels, removals, changes of policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.simulation.hub import SECOND

PATHS = ("a.py", "b.py", "conf/app.toml", "docs/readme.md", "slow/big.bin", "c/d/e.ts")


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that a client does. ``size``: writes of a batch; ``draw`` seeds what else it needs."""

    at: int
    kind: str
    workspace: str
    size: int = 1
    draw: int = 0


OPERATIONS = ("manual", "mutation", "probe", "hold", "cancel", "remove", "register", "policy", "exit")
SPECIAL = ("again", "batch", "hurry", "shift")


def draw_work(rng: Random, names: tuple[str, ...], length: int) -> tuple[tuple[Action, ...], dict[str, int]]:
    """Return all actions in order of time, and how many restarts of a workspace write files themselves."""
    actions: list[Action] = []
    rewrites: dict[str, int] = {}
    for name in names:
        rhythm = rng.choice((_quiet, _bursts, _bursts, _constant, _train))
        actions += rhythm(rng, name, length)
        if rng.random() < 0.2:
            rewrites[name] = rng.randrange(1, 5)
    kinds = [kind for kind in OPERATIONS if rng.random() < 0.35]
    for kind in kinds:
        for _ in range(rng.choice((1, 1, 2, 4))):
            name = rng.choice(names)
            actions.append(Action(at=rng.randrange(length), kind=kind, workspace=name, draw=rng.randrange(1 << 30)))
    timely = (action for action in actions if action.at < length)
    return tuple(sorted(timely, key=lambda action: action.at)), rewrites


def draw_special_work(rng: Random, names: tuple[str, ...], length: int) -> tuple[Action, ...]:
    """Return what sticklers do, in a third of the runs: drawn apart, so that it leaves all other work as it is."""
    if rng.random() > 0.35:
        return ()
    return tuple(
        Action(at=rng.randrange(length), kind=kind, workspace=rng.choice(names), draw=rng.randrange(1 << 30))
        for kind in SPECIAL
        if rng.random() < 0.7
        for _ in range(rng.choice((1, 3)))
    )


def _write(rng: Random, name: str, at: int, size: int = 1) -> Action:
    return Action(at=at, kind="write", workspace=name, size=size, draw=rng.randrange(1 << 30))


def _quiet(rng: Random, name: str, length: int) -> Iterator[Action]:
    for _ in range(rng.choice((1, 2, 4))):
        yield _write(rng, name, rng.randrange(length))


def _bursts(rng: Random, name: str, length: int) -> Iterator[Action]:
    """A save is 10 to 17 writes within two seconds, in one request or in several."""
    for _ in range(rng.choice((1, 2, 3))):
        begins, left = rng.randrange(length), rng.randrange(10, 18)
        while left:
            size = min(left, rng.choice((1, 4, 17)))
            yield _write(rng, name, begins + rng.randrange(2 * SECOND), size)
            left -= size


def _constant(rng: Random, name: str, length: int) -> Iterator[Action]:
    every = rng.choice((1, 2, 5, 11)) * SECOND
    at = rng.randrange(length)
    for _ in range(rng.choice((8, 16, 30))):
        yield _write(rng, name, at)
        at += every


def _train(rng: Random, name: str, length: int) -> Iterator[Action]:
    at = rng.randrange(length)
    for _ in range(rng.choice((3, 6, 12))):
        yield _write(rng, name, at)
        at += rng.randrange(3 * SECOND, 60 * SECOND)
