"""``./dev bench processes``: two and four API processes and two workers on one PostgreSQL, near and further away.

The writers of one workspace go through all of them; the append lock's time is measured inside each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.distance import Distance, further_away
from bench.due_at_once import Servers
from bench.figures import Bound, Figure, Table, number
from bench.gates import all_acknowledged, one_restart_each, verified
from bench.http_load import Answered, Load, put_load
from bench.machine import ROOT
from bench.peers.plan import paced
from bench.peers.product import product_in_race
from bench.peers.race import Raced, race
from bench.products import NOTHING_DUE, POSTGRES, Product, bare_server, on_postgres
from bench.run import Run
from bench.servers import durable_postgres, durable_redis
from bench.timed_lock import Held, held_between
from tests.servers.postgres import SUPERUSER

SUMMARY = "two and four API processes, two workers; how long the append lock is held, near and with 1 ms of distance"
_PART = "processes"
_WORKERS = 2
_WORKSPACES = 1000
_FURTHER_US = 1000
_OVER_CEILING = (0.30, 0.5)
_LOCK_MOST_US = 2000
_ROUND_TRIPS_MOST = 3
"""Two, and that of the one flush."""

_GROUP = range(32, 65)
"""Of how many events a group is of which the lock's time is told: up to 64, as so many connections bring them."""

_SPREAD, _HOT, _GROUPS = "1,000 workspaces", "one hot workspace", "64 connections a process"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many API processes there are, and whether their database is further away."""

    apis: int
    far: bool = False

    @property
    def name(self) -> str:
        """Return how it is called in a table."""
        apis = "one API process" if self.apis == 1 else f"{self.apis} API processes"
        return f"{apis}, {_FURTHER_US / 1000:g} ms of distance" if self.far else apis


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a layout answered, by the load's name, and how long its API processes held the lock."""

    answered: dict[str, Answered]
    held: Held


_LAYOUTS = (Layout(apis=1), Layout(apis=2), Layout(apis=4), Layout(apis=1, far=True), Layout(apis=2, far=True))
Found = dict[Layout, list[Turn]]


def measure(run: Run) -> None:
    """Measure all layouts in turns, then let restarts happen through several processes; add what was found."""
    found: Found = {}
    ceiling: list[Answered] = []
    raced: dict[str, Raced] = {}
    with run.folder() as folder, ExitStack() as stack:
        servers = Servers(stack.enter_context(durable_postgres()), stack.enter_context(durable_redis()))
        distance = stack.enter_context(further_away(servers.postgres.port, user=SUPERUSER, round_trip_us=_FURTHER_US))
        url, pid = bare_server(stack, folder)
        for _ in range(run.of(2, 1)):
            ceiling.append(put_load(url, _loads(run, 1)[_SPREAD], watched=(pid,)))
            for layout in _LAYOUTS:
                found.setdefault(layout, []).append(_turn(run, layout, folder, servers, distance))
        for apis in (2, 4):
            raced[Layout(apis=apis).name] = _race(run, apis, servers)
        run.findings.around.append(
            f"processes: with distance a statement's round trip was {distance.longer_us:,.0f} us longer, measured"
        )
    run.findings.figures += _figures(found, ceiling)
    run.findings.bounds += _bounds(found, distance)
    run.findings.tables += [_lock_table(found), _race_table(raced)]


def _loads(run: Run, apis: int) -> dict[str, Load]:
    seconds = run.of(4, 2)
    return {
        _SPREAD: Load(connections=64, workspaces=_WORKSPACES, seconds=seconds),
        _HOT: Load(connections=64, workspaces=1, seconds=seconds),
        _GROUPS: Load(connections=64 * apis, workspaces=_WORKSPACES, seconds=seconds),
    }


def _turn(run: Run, layout: Layout, folder: Path, servers: Servers, distance: Distance) -> Turn:
    answered: dict[str, Answered] = {}
    with _serving(run, layout, folder, servers, distance) as (product, notes):
        registered = put_load(
            product.url, Load(connections=1, workspaces=_WORKSPACES, seconds=1.0, batch=100), watched=()
        )
        began_ns = 0
        for name, load in _loads(run, layout.apis).items():
            began_ns = time.monotonic_ns()
            answered[name] = put_load(product.url, load, watched=product.pids, more_urls=product.urls[:-1])
        held = _held(notes, began_ns, time.monotonic_ns())
        product.stop()
        writes = registered.writes + sum(item.writes for item in answered.values())
        run.findings.gates += [all_acknowledged(_PART, product, writes), verified(_PART, product)]
    run.say(_said(layout, answered, held))
    return Turn(answered=answered, held=held)


@contextmanager
def _serving(
    run: Run, layout: Layout, folder: Path, servers: Servers, distance: Distance
) -> Iterator[tuple[Product, list[Path]]]:
    """Yield a product of that layout, in which nothing becomes due, and where its APIs note the lock's times."""
    broker = (servers.redis.url, servers.redis.pid)
    with on_postgres(run.today, folder, NOTHING_DUE, servers.postgres, broker=broker) as product:
        if layout.far:
            far_url = product.database_url.replace(f":{servers.postgres.port}/", f":{distance.port}/")
            product.settings = {**product.settings, "ORCHESTRATOR_DATABASE_URL": far_url}
        for worker in range(_WORKERS):
            product.run(f"worker-{worker}", "worker")
        product.run("beat", "beat")
        notes = [product.folder / f"lock-{api}" for api in range(layout.apis)]
        for api, file in enumerate(notes):
            product.program = (sys.executable, "-m", "bench.timed_lock", str(file))
            product.serve(f"api-{api}", "api", PYTHONPATH=str(ROOT))
        yield product, notes


def _held(notes: Sequence[Path], began_ns: int, ended_ns: int) -> Held:
    """Return what all processes together noted."""
    together = notes[0].with_name("lock-of-all")
    together.write_text("".join(file.read_text() for file in notes))
    return held_between(together, began_ns, ended_ns, events=_GROUP)


def _race(run: Run, apis: int, servers: Servers) -> Raced:
    """Save and restart, every workspace's writes through all API processes, its restarts by either worker."""
    with (
        run.folder() as folder,
        product_in_race(run.today, POSTGRES, folder, servers, processes=(_WORKERS, apis)) as (product, runner),
    ):
        raced = race(runner, paced(run.of(1000, 200)))
        product.stop()
        run.findings.gates += [
            all_acknowledged(_PART, product, raced.outcome.writes),
            *one_restart_each(_PART, product, restarts=raced.outcome.workspaces),
            verified(_PART, product),
        ]
    run.say(f"processes: {apis} APIs, {_WORKERS} workers: {raced.outcome.restarts_each:.2f} restarts each")
    return raced


def _figures(found: Found, ceiling: Sequence[Answered]) -> Iterator[Figure]:
    for layout, turns in found.items():
        spread, hot = ([turn.answered[name].a_second for turn in turns] for name in (_SPREAD, _HOT))
        what = f"durable 202s, 64 connections, {layout.name}"
        least, aim = (None, None) if layout.far else _OVER_CEILING
        yield _figure(what, spread, "bare ASGI app", [item.a_second for item in ceiling], (least, aim))
        if layout != _LAYOUTS[0]:
            one = [turn.answered[_SPREAD].a_second for turn in found[_LAYOUTS[0]]]
            yield _figure(what, spread, _LAYOUTS[0].name, one, (None, None))
        yield _figure(f"one hot workspace, {layout.name}", hot, "1,000 spread ones", spread, (1.0, None))


def _figure(
    what: str, ours: list[float], against: str, other: list[float], bars: tuple[float | None, float | None]
) -> Figure:
    least, aim = bars
    return Figure(
        part=_PART,
        what=what,
        store=POSTGRES,
        ours=ours,
        unit="/s",
        against=against,
        other=other,
        least=least,
        aim=aim,
    )


def _bounds(found: Found, distance: Distance) -> Iterator[Bound]:
    for layout, turns in found.items():
        held_us = [turn.held.p50_us for turn in turns]
        if not layout.far:
            what = f"append lock held for a group of {_GROUP.start} to {_GROUP.stop - 1} writes, {layout.name}"
            yield Bound(part=_PART, what=what, store=POSTGRES, values=held_us, unit="us", most=_LOCK_MOST_US)
            continue
        near_us = [turn.held.p50_us for turn in found[Layout(apis=layout.apis)]]
        trips = [(far - near) / distance.longer_us for far, near in zip(held_us, near_us, strict=True)]
        what = f"round trips under the append lock, {layout.name}"
        note = f"held for {number(median(held_us))} us"
        yield Bound(
            part=_PART, what=what, store=POSTGRES, values=trips, unit="", most=_ROUND_TRIPS_MOST + 0.5, note=note
        )


def _lock_table(found: Found) -> Table:
    heads = ("processes", "transactions", "events in one", "held p50 us", "held p99 us", "held share of all time")
    lines = []
    for layout, turns in found.items():
        held = sorted((turn.held for turn in turns), key=lambda one: one.p50_us)[len(turns) // 2]
        figures = (number(held.transactions), number(held.events_p50), number(held.p50_us), number(held.p99_us))
        lines.append((layout.name, *figures, f"{held.busy:.0%}"))
    title = f"How long the append lock is held for a group of {_GROUP.start} to {_GROUP.stop - 1} writes, {_GROUPS}"
    return Table(part=_PART, title=title, heads=heads, lines=lines)


def _race_table(raced: dict[str, Raced]) -> Table:
    heads = ("processes", "restarts each", "lost", "overlaps", "late p50, p99 ms", "ack p50, p99 ms", "CPU s a 1,000")
    lines = [
        (
            f"{name}, {_WORKERS} workers",
            f"{one.outcome.restarts_each:.2f}",
            str(one.outcome.lost),
            str(one.outcome.overlaps),
            f"{one.outcome.late_p50_ms:.1f}, {one.outcome.late_p99_ms:.1f}",
            f"{one.outcome.ack_p50_ms:.1f}, {one.outcome.ack_p99_ms:.1f}",
            f"{one.cpu_s_a_thousand:.3f}",
        )
        for name, one in raced.items()
    ]
    title = "17 writes over 2 s, 850 writes a second in all, each workspace's through all API processes"
    return Table(part=_PART, title=title, heads=heads, lines=lines)


def _said(layout: Layout, answered: dict[str, Answered], held: Held) -> str:
    rates = ", ".join(f"{name} {item.a_second:,.0f}/s" for name, item in answered.items())
    return f"processes: {layout.name}: {rates}; lock {held.p50_us:,.0f} us (p99 {held.p99_us:,.0f})"
