"""``./dev bench lateness``: how long after its due instant a restart's executor is called, at 850 writes a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.builds import Build
from bench.due_at_once import Servers
from bench.figures import Bound, Figure
from bench.gates import all_acknowledged, one_restart_each, verified
from bench.log_facts import events, percentile, seconds
from bench.peers.field import BULLMQ_EVERYSEC, peer_in_race
from bench.peers.installing import Tools, installed
from bench.peers.plan import Planned, paced
from bench.peers.product import product_in_race
from bench.peers.race import DidNotRun, Raced, race
from bench.products import POSTGRES, SQLITE, Product
from bench.run import Run
from bench.servers import durable_postgres, durable_redis

SUMMARY = "due instant to executor call at 850 writes a second over 1,000 workspaces, beside BullMQ"
_PART = "lateness"
_P50_MS, _P99_MS = (5, 3), (25, 15)


def measure(run: Run) -> None:
    """Measure both stores and BullMQ in turns, and add what was found."""
    tools = installed(run.kept, run.say)
    plan = paced(run.of(1000, 200))
    due: dict[str, list[list[float]]] = {POSTGRES: [], SQLITE: []}
    raced: dict[str, list[Raced]] = {POSTGRES: [], SQLITE: []}
    bullmq: list[Raced] = []
    with ExitStack() as stack:
        servers = Servers(stack.enter_context(durable_postgres()), stack.enter_context(durable_redis()))
        for _ in range(run.of(2, 1)):
            bullmq += _bullmq(run, tools, servers, plan)
            for store in (POSTGRES, SQLITE):
                late_ms, found = _turn(run, run.today, store, servers, plan)
                due[store].append(late_ms)
                raced[store].append(found)
                run.say(_said(store, late_ms, found))
    for store in (POSTGRES, SQLITE):
        run.findings.bounds += _bounds(store, due[store])
        run.findings.figures += _figures(store, raced[store], bullmq)


def _turn(run: Run, build: Build, store: str, servers: Servers, plan: list[Planned]) -> tuple[list[float], Raced]:
    with _folder() as folder, product_in_race(build, store, folder, servers) as (product, runner):
        found = race(runner, plan)
        late_ms = due_to_call_ms(product, runner.stamps)
        product.stop()
        workspaces = found.outcome.workspaces
        run.findings.gates += [
            all_acknowledged(_PART, product, found.outcome.writes),
            *one_restart_each(_PART, product, restarts=workspaces),
            verified(_PART, product),
        ]
    return late_ms, found


def due_to_call_ms(product: Product, stamps: Path) -> list[float]:
    """Return how many milliseconds after its due instant each restart's executor was called."""
    wall_minus_monotonic_s = time.time() - time.monotonic()
    due: dict[str, list[float]] = {}
    for event in events(product.database_url, "RestartQueued"):
        due.setdefault(event.workspace, []).append(seconds(event.data["due_at"]))
    called: dict[str, list[float]] = {}
    for line in stamps.read_text().splitlines():
        name, began, _ = line.split()
        called.setdefault(name, []).append(int(began) / 1e9 + wall_minus_monotonic_s)
    return [
        (at - due_at) * 1000
        for name, instants in due.items()
        for due_at, at in zip(sorted(instants), sorted(called.get(name, [])), strict=False)
    ]


def _bullmq(run: Run, tools: Tools, servers: Servers, plan: list[Planned]) -> list[Raced]:
    if "node" in tools.missing:
        run.findings.missing.append(f"lateness: {BULLMQ_EVERYSEC.what}: {tools.missing['node']}")
        return []
    server = (servers.redis.url, servers.redis.pid)
    try:
        with _folder() as folder, peer_in_race(BULLMQ_EVERYSEC, tools, folder, server=server) as runner:
            found = race(runner, plan)
    except DidNotRun as error:
        run.findings.missing.append(f"lateness: {error}")
        return []
    late = found.outcome
    run.say(f"lateness: BullMQ: quiet to call p50 {late.late_p50_ms:.1f}, p99 {late.late_p99_ms:.1f} ms")
    return [found]


def _said(store: str, late_ms: list[float], found: Raced) -> str:
    return (
        f"lateness: {store}: due to call p50 {percentile(late_ms, 0.5):.1f}, p99 {percentile(late_ms, 0.99):.1f} ms; "
        f"202 p99 {found.outcome.ack_p99_ms:.1f} ms; others {found.others_share:.0%}"
    )


def _bounds(store: str, turns: list[list[float]]) -> list[Bound]:
    what = "due instant to executor call, 850 writes/s"
    return [
        Bound(
            part=_PART,
            what=f"{what}: {name}",
            store=store,
            values=[percentile(late_ms, share) for late_ms in turns],
            unit="ms",
            most=most,
            aim=aim,
        )
        for name, share, (most, aim) in (("p50", 0.5, _P50_MS), ("p99", 0.99, _P99_MS))
    ]


def _figures(store: str, raced: list[Raced], bullmq: list[Raced]) -> list[Figure]:
    against = f"{BULLMQ_EVERYSEC.what}, everysec"
    return [
        Figure(
            part=_PART,
            what="last write and quiet time to executor call, 850 writes/s: p99",
            store=store,
            ours=[item.outcome.late_p99_ms for item in raced],
            unit="ms",
            against=against,
            other=[item.outcome.late_p99_ms for item in bullmq],
            more_is_better=False,
            least=1.0,
        ),
        Figure(
            part=_PART,
            what="CPU of client, product and servers a thousand writes, 850 writes/s",
            store=store,
            ours=[item.cpu_s_a_thousand for item in raced],
            unit="s",
            against=against,
            other=[item.cpu_s_a_thousand for item in bullmq],
            more_is_better=False,
        ),
    ]


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="bench-race-") as name:
        yield Path(name)
