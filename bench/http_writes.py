"""``./dev bench http``: durable 202s a second, beside a bare ASGI app on the same server and an older revision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.builds import Build
from bench.figures import Bound, Figure, Gate
from bench.gates import all_acknowledged, verified
from bench.http_load import Answered, Load, put_load
from bench.products import NOTHING_DUE, POSTGRES, SQLITE, Product, bare_server, on_postgres, on_sqlite, up
from bench.run import Run
from bench.servers import durable_postgres, durable_redis, syncs_a_second

SUMMARY = "durable 202s a second over HTTP, beside a bare ASGI app and an older revision"
_PART = "http"
_CEILING = "bare ASGI app"
_WORKSPACES = 1000
_BATCH = 100

_OVER_CEILING = {SQLITE: (0.35, 0.5), POSTGRES: (0.30, 0.5)}
_OVER_OLDER = {SQLITE: (25, 35), POSTGRES: (45, 70)}
_P99_MOST_MS = 40
_REGISTERING = Load(connections=1, workspaces=_WORKSPACES, seconds=1.0, batch=_BATCH)
"""A write of each workspace registers it, unmeasured."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that answers: the ceiling, or a product."""

    name: str
    url: str
    pids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OfProduct(Target):
    """A product of a build, as something that answers."""

    product: Product


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of load; ``ceiling``: whether the bare app gets it too."""

    name: str
    load: Load
    ceiling: bool = True

    @property
    def is_asked(self) -> bool:
        """True if ratios are asked of it: single writes over many workspaces."""
        return self.load.workspaces > 1 and self.load.batch == 1


class Turns:
    """What each target answered, by case and turn."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[Answered]] = {}

    def add(self, target: str, case: str, answered: Answered) -> None:
        """Take one turn's."""
        self._found.setdefault((target, case), []).append(answered)

    def of(self, target: str, case: str) -> list[Answered]:
        """Return all turns' in order."""
        return self._found.get((target, case), [])

    def writes(self, target: str) -> int:
        """Return how many writes a target has answered, over all."""
        return sum(item.writes for (name, _), found in self._found.items() if name == target for item in found)

    @property
    def others_share(self) -> float:
        """Return the largest share of the machine that something else took meanwhile."""
        return max(item.others_share for found in self._found.values() for item in found)


def measure(run: Run) -> None:
    """Measure all targets in turns, and add what was found."""
    with run.folder() as folder, ExitStack() as stack:
        syncs = syncs_a_second(folder)
        url, pid = bare_server(stack, folder)
        ceiling = Target(name=_CEILING, url=url, pids=(pid,))
        products = list(_products(run, folder, stack))
        turns = Turns()
        put_load(url, Load(connections=64, workspaces=_WORKSPACES, seconds=0.5), watched=())  # warm, as they will be
        for product in products:
            turns.add(product.name, "registration", put_load(product.url, _REGISTERING, watched=()))
        cases = _cases(run)
        for turn in range(run.of(3, 1)):
            for case in cases:
                for target in [ceiling, *products] if case.ceiling else products:
                    answered = put_load(target.url, case.load, watched=target.pids)
                    turns.add(target.name, case.name, answered)
                    run.say(_said(turn, case, target, answered))
        run.findings.around += _surroundings(turns, syncs)
        run.findings.figures += _figures(products, cases, turns, run.older)
        run.findings.bounds += _latencies(products, cases, turns)
        run.findings.gates += _gates(products, turns)


def _cases(run: Run) -> list[Case]:
    seconds = run.of(4, 2)
    spread = partial(Load, workspaces=_WORKSPACES, seconds=seconds)
    return [
        Case(name="64 connections, 1,000 workspaces", load=spread(connections=64)),
        Case(name="256 connections, 1,000 workspaces", load=spread(connections=256)),
        Case(name="64 connections, one hot workspace", load=Load(connections=64, workspaces=1, seconds=seconds)),
        Case(name="64 connections, batches of 100", load=spread(connections=64, batch=_BATCH), ceiling=False),
    ]


def _products(run: Run, folder: Path, stack: ExitStack) -> Iterator[OfProduct]:
    """Start each build on each store, older ones beside today's."""
    for build in run.builds:
        product = stack.enter_context(on_sqlite(build, folder, NOTHING_DUE))
        up(product)
        yield _target(product, "up")
    postgres, redis = stack.enter_context(durable_postgres()), stack.enter_context(durable_redis())
    for build in run.builds:
        broker = (redis.url, redis.pid)
        product = stack.enter_context(on_postgres(build, folder, NOTHING_DUE, postgres, broker=broker))
        product.serve("api", "api")
        yield _target(product, "api")


def _target(product: Product, layout: str) -> OfProduct:
    name = f"{product.store} {layout}, {product.build.name}"
    return OfProduct(name=name, url=product.url, product=product, pids=tuple(product.pids))


def _figures(products: Sequence[OfProduct], cases: Sequence[Case], turns: Turns, older: Build | None) -> list[Figure]:
    found: list[Figure] = []
    for target in products:
        if not target.product.build.is_todays:
            continue
        for case in cases:
            if case.ceiling:
                found.append(_over_ceiling(target, case, turns))
            for other in products:
                if other.product.store == target.product.store and other.product.build == older:
                    found += _over_older(target, other, case, turns)
        found.append(_hot(target, cases, turns))
    return found


def _over_ceiling(target: OfProduct, case: Case, turns: Turns) -> Figure:
    ours = turns.of(target.name, case.name)
    least, aim = _OVER_CEILING[target.product.store] if case.is_asked else (None, None)
    return Figure(
        part=_PART,
        what=f"durable 202s, {case.name}",
        store=target.product.store,
        ours=[item.a_second for item in ours],
        unit="/s",
        against=_CEILING,
        other=[item.a_second for item in turns.of(_CEILING, case.name)],
        least=least,
        aim=aim,
        note=_note(ours),
    )


def _over_older(target: OfProduct, other: OfProduct, case: Case, turns: Turns) -> Iterator[Figure]:
    ours, others = turns.of(target.name, case.name), turns.of(other.name, case.name)
    store, against = target.product.store, f"commit {other.product.build.name}"
    least, aim = _OVER_OLDER[store] if case.is_asked else (None, None)
    yield Figure(
        part=_PART,
        what=f"durable writes, {case.name}",
        store=store,
        ours=[item.writes_a_second for item in ours],
        unit="/s",
        against=against,
        other=[item.writes_a_second for item in others],
        least=least,
        aim=aim,
        note=f"{other.product.build.name}: {_note(others)}",
    )
    yield Figure(
        part=_PART,
        what=f"CPU of product and database a write, {case.name}",
        store=store,
        ours=[item.cpu_us for item in ours],
        unit="us",
        against=against,
        other=[item.cpu_us for item in others],
        more_is_better=False,
    )


def _hot(target: OfProduct, cases: Sequence[Case], turns: Turns) -> Figure:
    spread, _, hot, _ = (turns.of(target.name, case.name) for case in cases)
    return Figure(
        part=_PART,
        what="one hot workspace, 64 connections",
        store=target.product.store,
        ours=[item.a_second for item in hot],
        unit="/s",
        against="1,000 spread ones",
        other=[item.a_second for item in spread],
        least=1.0,
    )


def _latencies(products: Sequence[OfProduct], cases: Sequence[Case], turns: Turns) -> list[Bound]:
    return [
        Bound(
            part=_PART,
            what=f"p99 of a 202, {cases[0].name}",
            store=target.product.store,
            values=[item.p99_ms for item in turns.of(target.name, cases[0].name)],
            unit="ms",
            most=_P99_MOST_MS,
        )
        for target in products
        if target.product.build.is_todays
    ]


def _gates(products: Sequence[OfProduct], turns: Turns) -> list[Gate]:
    found = []
    for target in products:
        found.append(all_acknowledged(_PART, target.product, turns.writes(target.name)))
        found.append(verified(_PART, target.product))
    return found


def _note(found: Sequence[Answered]) -> str:
    middle = sorted(found, key=lambda item: item.p50_ms)[len(found) // 2]
    return f"p50 {middle.p50_ms:.1f}, p99 {middle.p99_ms:.1f} ms, {middle.cpu_us:.0f} us CPU a write"


def _surroundings(turns: Turns, syncs: float) -> list[str]:
    most = max(item.generator_most for item in turns.of(_CEILING, "64 connections, 1,000 workspaces"))
    return [
        f"http: the generator alone could ask {most:,.0f} times a second; others took up to "
        f"{turns.others_share:.0%} of the machine; the disk syncs {syncs:,.0f} pages a second, one after the other"
    ]


def _said(turn: int, case: Case, target: Target, answered: Answered) -> str:
    return (
        f"http {turn + 1}: {case.name}: {target.name}: {answered.writes_a_second:,.0f}/s, "
        f"{_note([answered])}, others {answered.others_share:.0%}"
    )
