"""How ingest, folding, idle looks and lists grow from a hundred workspaces to a hundred thousand, on both stores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.due_at_once import Servers, folded, waiting_product, write_once_each
from bench.figures import Figure, Line, number
from bench.gates import all_acknowledged, verified
from bench.http_load import Load, put_load
from bench.looks import idle_look_ms, pages_ms
from bench.products import NOTHING_DUE, POSTGRES, SQLITE
from bench.run import Run
from orchestrator.storage.opening import open_store

_PART = "scale"
_SIZES = (100, 1_000, 10_000, 100_000)
_QUICK_SIZES = (100, 1_000, 3_000)
_BASE = 1_000
"""What growth is counted from; with fewer too little is due at a time for a rate of folds."""

_REQUESTS_MOST = 100_000
_ONE_SLOT = {"ORCHESTRATOR_SLOTS": "1"}
_LOOK_GROWS_MOST, _PAGE_GROWS_MOST = 1.2, 1.5
REGISTERED, INGESTED, FOLDED = "workspaces registered, 500 a request", "writes over HTTP, 64 connections", "folds"
LOOK = "an idle look"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was found at one size: ``rates`` are a second, ``costs`` milliseconds."""

    rates: dict[str, float]
    costs: dict[str, float]
    cpu_s_a_thousand: float


Found = dict[tuple[str, int], list[Point]]


def measure_workspaces(run: Run, servers: Servers) -> None:
    """Measure all sizes in turns, and add what was found."""
    found: Found = {}
    sizes = _QUICK_SIZES if run.quick else _SIZES
    for _ in range(run.of(2, 1)):
        for store in (POSTGRES, SQLITE):
            for size in sizes:
                with run.folder() as folder:
                    point = _point(run, store, size, folder, servers)
                found.setdefault((store, size), []).append(point)
                run.say(_said(store, size, point))
    for store in (POSTGRES, SQLITE):
        run.findings.figures += _figures(store, sizes, found)
        run.findings.lines += _lines(store, sizes, found)


def _point(run: Run, store: str, size: int, folder: Path, servers: Servers) -> Point:
    load = Load(
        connections=64,
        workspaces=size,
        seconds=run.of(4, 1),
        files=max(1, min(17, _REQUESTS_MOST // size)),
    )
    with waiting_product(run.today, store, folder, servers, settings=NOTHING_DUE) as product:
        began = time.perf_counter()
        write_once_each(product, size)
        rates = {REGISTERED: size / (time.perf_counter() - began)}
        answered = put_load(product.url, load, watched=product.pids)
        rates[INGESTED] = answered.a_second
        with closing(open_store(product.database_url)) as opened:
            costs = {LOOK: idle_look_ms(opened), **pages_ms(opened)}
        product.stop()
        run.findings.gates += [all_acknowledged(_PART, product, size + answered.writes), verified(_PART, product)]
    if size >= _BASE:
        with waiting_product(run.today, store, folder, servers, settings=_ONE_SLOT) as product:
            rates[FOLDED] = folded(product, size)
            product.kill()  # its one slot is taken for minutes
            run.findings.gates.append(verified(_PART, product))
    return Point(rates=rates, costs=costs, cpu_s_a_thousand=answered.cpu_us / 1000)


def _figures(store: str, sizes: tuple[int, ...], found: Found) -> Iterator[Figure]:
    most = sizes[-1]
    small, large = found[store, _BASE], found[store, most]
    for name in large[0].rates:
        ours, other = ([point.rates[name] for point in points] for points in (large, small))
        yield _figure(name, store, most, ours, "/s", other, None)
    yield _figure(
        "CPU of product and servers a thousand writes",
        store,
        most,
        [point.cpu_s_a_thousand for point in large],
        "s",
        [point.cpu_s_a_thousand for point in small],
        None,
        more_is_better=False,
    )
    for name in large[0].costs:
        ours, other = ([point.costs[name] for point in points] for points in (large, small))
        bar = _LOOK_GROWS_MOST if name == LOOK else _PAGE_GROWS_MOST
        yield _figure(name, store, most, ours, "ms", other, bar, more_is_better=False)


def _figure(
    name: str,
    store: str,
    size: int,
    ours: list[float],
    unit: str,
    other: list[float],
    bar: float | None,
    *,
    more_is_better: bool = True,
) -> Figure:
    return Figure(
        part=_PART,
        what=f"{name}, {number(size)} workspaces",
        store=store,
        ours=ours,
        unit=unit,
        against=f"{number(_BASE)} workspaces",
        other=other,
        more_is_better=more_is_better,
        least=bar,
    )


def _lines(store: str, sizes: tuple[int, ...], found: Found) -> Iterator[Line]:
    for name in (REGISTERED, INGESTED, FOLDED):
        points = [
            (size, _middle([point.rates[name] for point in found[store, size]]))
            for size in sizes
            if name in found[store, size][0].rates
        ]
        yield Line(part=_PART, plot=f"{name}, a second", name=store, x="workspaces", y="a second", points=points)
    for name in (LOOK, "a page of workspaces", "a page of open windows"):
        points = [(size, _middle([point.costs[name] for point in found[store, size]])) for size in sizes]
        yield Line(part=_PART, plot=f"{name}, ms", name=store, x="workspaces", y="ms", points=points)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _said(store: str, size: int, point: Point) -> str:
    rates = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in point.rates.items())
    costs = ", ".join(f"{name} {cost:.2f} ms" for name, cost in point.costs.items())
    return f"scale: {size:,} workspaces on {store}: {rates}; {costs}"
