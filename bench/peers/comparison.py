"""``./dev bench peers``: the save burst on what a user would pick instead, and on the product, in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.due_at_once import Servers
from bench.figures import Figure, Table, number
from bench.gates import all_acknowledged, one_restart_each, verified
from bench.peers import field
from bench.peers.field import Peer, peer_in_race
from bench.peers.installing import Tools, installed
from bench.peers.plan import Planned, burst, paced
from bench.peers.product import product_in_race
from bench.peers.race import DidNotRun, Raced, race
from bench.products import POSTGRES, SQLITE
from bench.run import Run
from bench.servers import AppendingRedis, durable_postgres, durable_redis
from tests.servers.postgres import PostgresServer

SUMMARY = "the save burst on BullMQ, graphile-worker, pg-boss, procrastinate, pgqueuer, Celery and on the product"
_PART = "peers"
_BATCH = 100
_IN_FLIGHT = 64

_SQLITE_SINGLE = "product on SQLite, a write a request"
_SQLITE_BATCH = "product on SQLite, 100 writes a request"
_POSTGRES_SINGLE = "product on PostgreSQL, a write a request"
_POSTGRES_BATCH = "product on PostgreSQL, 100 writes a request"
_PRODUCTS = {
    _SQLITE_SINGLE: (SQLITE, 1),
    _SQLITE_BATCH: (SQLITE, _BATCH),
    _POSTGRES_SINGLE: (POSTGRES, 1),
    _POSTGRES_BATCH: (POSTGRES, _BATCH),
}

Found = dict[str, list[Raced]]


@dataclass(frozen=True, kw_only=True)
class Field:
    """The servers on which everybody runs, and the peers' tools."""

    run: Run
    tools: Tools
    postgres: PostgresServer
    everysec: AppendingRedis
    always: AppendingRedis

    def server_of(self, peer: Peer) -> tuple[str, int]:
        """Return the URL and process of a peer's server; on PostgreSQL it is a new database."""
        if peer.server == field.POSTGRES:
            name = self.postgres.create_database()
            return self.postgres.url(name).replace("+psycopg", ""), self.postgres.pid
        redis = self.everysec if peer.server == field.EVERYSEC else self.always
        return redis.url, redis.pid


def measure(run: Run) -> None:
    """Let everybody run in turns, and add what was found."""
    with ExitStack() as stack:
        course = Field(
            run=run,
            tools=installed(run.kept, run.say),
            postgres=stack.enter_context(durable_postgres()),
            everysec=stack.enter_context(durable_redis()),
            always=stack.enter_context(durable_redis(fsync="always")),
        )
        bursts, saves = burst(run.of(1000, 100)), paced(run.of(1000, 100))
        peers = [peer for peer in field.PEERS if _can_run(course, peer)]
        hurried = _turns(course, bursts, peers, turns=run.of(2, 1))
        slow = _turns(course, saves, [] if run.quick else peers, turns=1)
    run.findings.figures += [figure for figure in _figures(hurried) if figure.ours]
    run.findings.tables.append(_table("17 writes of each workspace, as fast as they are taken", hurried))
    run.findings.tables.append(_table("17 writes over 2 s, 850 writes a second in all", slow))


def _can_run(course: Field, peer: Peer) -> bool:
    missing = course.tools.missing.get(peer.needs)
    if missing is not None:
        course.run.findings.missing.append(f"peers: {peer.name}: {missing}")
    return missing is None


def _turns(course: Field, plan: Sequence[Planned], peers: Sequence[Peer], *, turns: int) -> Found:
    found: Found = {}
    for _ in range(turns):
        for name, (store, batch) in _PRODUCTS.items():
            if plan[-1][0] > 0 and batch > 1:
                continue  # people who save do not wait for each other
            found.setdefault(name, []).append(_product(course, store, batch, plan))
            course.run.say(_said(name, found[name][-1]))
        for peer in peers:
            for raced in _peer(course, peer, plan):
                found.setdefault(peer.name, []).append(raced)
                course.run.say(_said(peer.name, raced))
    return found


def _product(course: Field, store: str, batch: int, plan: Sequence[Planned]) -> Raced:
    servers = Servers(course.postgres, course.everysec)
    with (
        _folder() as folder,
        product_in_race(course.run.today, store, folder, servers, batch=batch) as (product, runner),
    ):
        raced = race(runner, plan)
        product.stop()
        course.run.findings.gates += [
            all_acknowledged(_PART, product, raced.outcome.writes),
            *one_restart_each(_PART, product, restarts=raced.outcome.workspaces),
            verified(_PART, product),
        ]
    return raced


def _peer(course: Field, peer: Peer, plan: Sequence[Planned]) -> Iterator[Raced]:
    """Yield what came of it, or nothing where it did not run, which is noted."""
    in_flight = _IN_FLIGHT * _BATCH if peer.kind == "bulk" else _IN_FLIGHT
    try:
        with (
            _folder() as folder,
            peer_in_race(peer, course.tools, folder, server=course.server_of(peer), in_flight=in_flight) as runner,
        ):
            yield race(runner, plan)
    except DidNotRun as error:
        course.run.findings.missing.append(f"peers: {error}")


def _figures(found: Found) -> Iterator[Figure]:
    bulk = field.BULLMQ_BULK, field.BULLMQ_BULK_ALWAYS
    yield _speed(found, _SQLITE_BATCH, bulk[0].name, SQLITE, 2, 3)
    yield _speed(found, _SQLITE_BATCH, bulk[1].name, SQLITE, 2, 3)
    yield _speed(found, _SQLITE_SINGLE, field.BULLMQ_EVERYSEC.name, SQLITE, 0.8, 1.3)
    yield _speed(found, _SQLITE_SINGLE, field.BULLMQ_ALWAYS.name, SQLITE, 1.0, 1.5)
    ran = [peer.name for peer in field.ON_POSTGRES if peer.name in found]
    if ran:
        best = max(ran, key=lambda name: median(item.outcome.accepted_a_second for item in found[name]))
        yield _speed(found, _POSTGRES_SINGLE, best, POSTGRES, 2, 4)
    yield _speed(found, _POSTGRES_SINGLE, field.PLAIN_CELERY.name, POSTGRES, 3, 5)
    yield _cost(found, _SQLITE_SINGLE, field.BULLMQ_EVERYSEC.name, SQLITE, 0.8, 0.5)
    yield _cost(found, _POSTGRES_SINGLE, field.BULLMQ_EVERYSEC.name, POSTGRES, 0.8, 0.5)
    yield _cost(found, _POSTGRES_SINGLE, field.PGBOSS.name, POSTGRES, 0.1, 0.05)


def _speed(found: Found, ours: str, other: str, store: str, least: float, aim: float) -> Figure:
    what = f"writes accepted: {ours}"
    return _figure(found, (ours, other), what, store, (least, aim), lambda item: item.outcome.accepted_a_second)


def _cost(found: Found, ours: str, other: str, store: str, most: float, aim: float) -> Figure:
    what = f"CPU of clients, worker and servers a thousand writes: {ours}"
    return replace(
        _figure(found, (ours, other), what, store, (most, aim), lambda item: item.cpu_s_a_thousand),
        unit="s",
        more_is_better=False,
    )


def _figure(
    found: Found,
    pair: tuple[str, str],
    what: str,
    store: str,
    bars: tuple[float, float],
    value: Callable[[Raced], float],
) -> Figure:
    ours, other = pair
    return Figure(
        part=_PART,
        what=what,
        store=store,
        ours=[value(item) for item in found.get(ours, [])],
        unit="/s",
        against=other,
        other=[value(item) for item in found.get(other, [])],
        least=bars[0],
        aim=bars[1],
    )


def _table(title: str, found: Found) -> Table:
    whole = "accepted/s", "restarts each", "lost", "overlaps", "early"
    heads = ("who", *whole, "late p50, p99 ms", "ack p50, p99 ms", "CPU s a 1,000")
    return Table(part=_PART, title=title, heads=heads, lines=[_line(name, raced) for name, raced in found.items()])


def _line(name: str, raced: Sequence[Raced]) -> tuple[str, ...]:
    middle = sorted(raced, key=lambda item: item.outcome.accepted_a_second)[len(raced) // 2]
    outcome = middle.outcome
    return (
        name,
        number(outcome.accepted_a_second),
        f"{outcome.restarts_each:.2f}",
        str(outcome.lost),
        str(outcome.overlaps),
        str(outcome.early),
        f"{outcome.late_p50_ms:.1f}, {outcome.late_p99_ms:.1f}",
        f"{outcome.ack_p50_ms:.1f}, {outcome.ack_p99_ms:.1f}",
        f"{middle.cpu_s_a_thousand:.3f}",
    )


def _said(name: str, raced: Raced) -> str:
    outcome = raced.outcome
    return (
        f"peers: {name}: {outcome.accepted_a_second:,.0f}/s, {outcome.restarts_each:.2f} restarts each, "
        f"{outcome.lost} lost, {outcome.overlaps} overlaps, {raced.cpu_s_a_thousand:.2f} s CPU a 1,000"
    )


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="bench-race-") as name:
        yield Path(name)
