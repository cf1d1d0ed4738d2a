"""``./dev bench keys``: what a writer's key costs, beside the same writes without one; how soon a revoked key is dead.

The two loads are put on the same running API in turn, so that nothing differs but the header. No worker runs: what it
does with the writes meanwhile (it seals them, and sums them up) would fall to whichever turn it comes in. The death of
a key is measured in four API processes: from the answer of the one that revoked it to the first 401 of each.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.figures import Bound, Figure, Table, number
from bench.gates import all_acknowledged, verified
from bench.http_load import Answered, Load, put_load
from bench.products import NOTHING_DUE, POSTGRES, Product, on_postgres, on_sqlite
from bench.run import Run
from bench.servers import durable_postgres, durable_redis
from orchestrator.owner_key import make_owner_key, read_owner_key

SUMMARY = "what a writer's key costs in CPU, beside the same writes without one; how soon a revoked key is dead"
_PART = "keys"
_COSTS_MOST = 1.05
_DEAD_WITHIN_MS = 1000
_APIS, _KEYS = 4, 20
_WORKSPACES = 1000
_LOOKS_EVERY_S = 0.002
_GIVEN_UP_S = 10.0
_PASSED_OVER_TURNS = 1
"""A product's first turn warms it up."""


@dataclass(frozen=True)
class Pair:
    """What one turn was answered, with and without a key."""

    keyed: Answered
    plain: Answered


def measure(run: Run) -> None:
    """Measure the cost on both stores, then the death of keys; add what was found."""
    with run.folder() as folder, ExitStack() as stack:
        postgres, redis = stack.enter_context(durable_postgres()), stack.enter_context(durable_redis())
        owner = folder / "owner.key"
        make_owner_key(owner)
        settings = {**NOTHING_DUE, "ORCHESTRATOR_OWNER_KEY": str(owner)}
        broker = (redis.url, redis.pid)
        with on_sqlite(run.today, folder, settings) as product:
            _serve_alone(product)
            _cost(run, product, owner)
        with on_postgres(run.today, folder, settings, postgres, broker=broker) as product:
            product.serve("api", "api")
            _cost(run, product, owner)
        with on_postgres(run.today, folder, settings, postgres, broker=broker) as product:
            for api in range(_APIS):
                product.serve(f"api-{api}", "api")
            _deaths(run, product, owner)


def _serve_alone(product: Product) -> None:
    """Start the API alone on SQLite, as ``on_postgres`` has it."""
    product.settings = {
        **product.settings,
        "ORCHESTRATOR_DATABASE_URL": product.database_url,
        "ORCHESTRATOR_BIND": "127.0.0.1:0",
        "ORCHESTRATOR_AUTO_REGISTER": "simulated",
    }
    (product.folder / "data").mkdir(mode=0o700)
    product.migrate()
    product.serve("api", "api")


def _cost(run: Run, product: Product, owner: Path) -> None:
    key = _made(product.url, read_owner_key(owner), "bench")
    plain = Load(connections=64, workspaces=_WORKSPACES, seconds=run.of(2, 1))
    batch = replace(plain, connections=1, seconds=1.0, batch=100)
    written = put_load(product.url, batch, watched=()).writes
    pairs: list[Pair] = []
    for turn in range(run.of(15, 3) + _PASSED_OVER_TURNS):
        pair = _in_turn(product, replace(plain, key=key), plain, keyed_first=turn % 2 == 0)
        written += pair.keyed.writes + pair.plain.writes
        run.say(f"keys {turn}: {product.store}: {_said(pair)}")
        if turn >= _PASSED_OVER_TURNS:
            pairs.append(pair)
    run.findings.figures += _figures(product.store, pairs)
    product.stop()
    run.findings.gates += [all_acknowledged(_PART, product, written), verified(_PART, product)]


def _in_turn(product: Product, keyed: Load, plain: Load, *, keyed_first: bool) -> Pair:
    """Put both loads on a product, now the one first and now the other: what the first leaves burdens the second."""
    if keyed_first:
        found = put_load(product.url, keyed, watched=product.pids)
        return Pair(keyed=found, plain=put_load(product.url, plain, watched=product.pids))
    found = put_load(product.url, plain, watched=product.pids)
    return Pair(keyed=put_load(product.url, keyed, watched=product.pids), plain=found)


def _figures(store: str, pairs: Sequence[Pair]) -> Iterator[Figure]:
    what, against = "with a writer's key, 64 connections, 1,000 workspaces", "the same without a key"
    yield Figure(
        part=_PART,
        what=f"CPU of product and database a write, {what}",
        store=store,
        ours=[pair.keyed.cpu_us for pair in pairs],
        unit="us",
        against=against,
        other=[pair.plain.cpu_us for pair in pairs],
        more_is_better=False,
        least=_COSTS_MOST,
    )
    yield Figure(
        part=_PART,
        what=f"durable 202s, {what}",
        store=store,
        ours=[pair.keyed.a_second for pair in pairs],
        unit="/s",
        against=against,
        other=[pair.plain.a_second for pair in pairs],
    )


def _said(pair: Pair) -> str:
    return (
        f"{pair.keyed.cpu_us:.0f} us CPU a write with a key, {pair.plain.cpu_us:.0f} without; others took "
        f"{max(pair.keyed.others_share, pair.plain.others_share):.0%} of the machine"
    )


def _deaths(run: Run, product: Product, owner: Path) -> None:
    """Revoke key after key, each through another process; measure how long each process goes on taking it."""
    sends = read_owner_key(owner)
    died_ms = []
    for each in range(run.of(_KEYS, 4)):
        name = f"doomed-{each}"
        key = _made(product.urls[each % _APIS], sends, name)
        with ThreadPoolExecutor(_APIS) as watches:
            for url in product.urls:
                _await(url, key, 200)
            _asked(product.urls[(each + 1) % _APIS], "DELETE", f"/v1/keys/{name}", sends)
            revoked_s = time.perf_counter()
            ended = list(watches.map(lambda url, key=key: _await(url, key, 401), product.urls))
        died_ms.append([max(0.0, at - revoked_s) * 1000 for at in ended])
        run.say(f"keys: revoked {name}: {', '.join(f'{ms:.0f}' for ms in died_ms[-1])} ms")
    slowest = [max(each) for each in died_ms]
    run.findings.bounds.append(
        Bound(
            part=_PART,
            what=f"from a revocation to the first 401 of all {_APIS} APIs, the slowest of {len(slowest)} keys",
            store=POSTGRES,
            values=[max(slowest)],
            unit="ms",
            most=_DEAD_WITHIN_MS,
        )
    )
    lines = [
        (f"{process}", number(min(ms)), number(sorted(ms)[len(ms) // 2]), number(max(ms)))
        for process, ms in _by_process(died_ms)
    ]
    heads = ("API process", "soonest ms", "median ms", "latest ms")
    run.findings.tables.append(
        Table(
            part=_PART,
            title="How long a process goes on taking a key after another revoked it",
            heads=heads,
            lines=lines,
        )
    )
    product.stop()
    run.findings.gates.append(verified(_PART, product))


def _by_process(died_ms: Sequence[Sequence[float]]) -> Iterator[tuple[str, list[float]]]:
    """Order by how far a process is from the one that was asked, which comes first: it refuses the next request."""
    for distance in range(_APIS):
        name = "the one that was asked" if distance == 0 else f"another ({distance})"
        yield name, [each[(turn + 1 + distance) % _APIS] for turn, each in enumerate(died_ms)]


def _made(url: str, owner: str, name: str) -> str:
    made: str = _asked(url, "POST", "/v1/keys", owner, {"name": name, "role": "writer"})["key"]
    return made


def _asked(url: str, method: str, path: str, key: str, body: object = None) -> dict[str, Any]:
    with _connected(url) as wire:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        wire.request(method, path, None if body is None else json.dumps(body), headers)
        answer = wire.getresponse()
        text = answer.read()
    if answer.status not in (200, 201):
        raise AssertionError(f"{method} {path}: {answer.status} {text[:600]!r}")
    found: dict[str, Any] = json.loads(text)
    return found


def _await(url: str, key: str, status: int) -> float:
    """Ask again and again until a process answers so; return when. The clock is read before it was asked."""
    with _connected(url) as wire:
        until_s = time.perf_counter() + _GIVEN_UP_S
        while (asked_s := time.perf_counter()) < until_s:
            wire.request("GET", "/v1/whoami", headers={"Authorization": f"Bearer {key}"})
            answer = wire.getresponse()
            answer.read()
            if answer.status == status:
                return asked_s
            time.sleep(_LOOKS_EVERY_S)
    raise AssertionError(f"{url} answered {answer.status} for {_GIVEN_UP_S:g} s, not {status}")


@contextmanager
def _connected(url: str) -> Iterator[http.client.HTTPConnection]:
    wire = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_GIVEN_UP_S)
    try:
        yield wire
    finally:
        wire.close()
