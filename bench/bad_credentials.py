"""``./dev bench refusals``: requests with credentials that are none, over all operations, and how long a refusal takes.

By kind of credential: what is wrong with one must not be told by the time that it takes. Exits with 1 where a request
was answered with anything but 401, where the medians of the kinds are further apart than ``MEDIANS_APART``, a kind's
99th of 100 takes more than ``TAIL`` medians, or the log has not one line each, none with a key in it. The API is a
process of its own, as it is run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

from bench.builds import todays_build
from bench.products import SQLITE, Product
from orchestrator.api.access_table import operations
from orchestrator.api.app import create_app
from orchestrator.api.protocol.request_context import PROBES
from orchestrator.bootstrap import open_services
from orchestrator.owner_key import make_owner_key, new_key
from orchestrator.settings import load_settings

SUMMARY = "refuse wrong, expired, revoked and malformed credentials over all operations, and time it"
MEDIANS_APART, TAIL = 1.2, 5.0
_FILLED = {"workspace": "ws", "restart": "rst_0", "write": "evt_0", "fleet": "web", "key": "key_0"}


def main(args: list[str]) -> int:
    """Measure; print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="./dev bench refusals", description=SUMMARY)
    parser.add_argument("--requests", type=int, default=10_000)
    wanted = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(Path(folder), wanted.requests)
    print(json.dumps(found, indent=1))
    return 0 if found["good"] else 1


def _measured(folder: Path, requests: int) -> dict[str, object]:
    owner, url = make_owner_key(folder / "owner.key"), f"sqlite:///{folder}/log.db"
    settings = {
        "ORCHESTRATOR_DATABASE_URL": url,
        "ORCHESTRATOR_OWNER_KEY": str(folder / "owner.key"),
        "ORCHESTRATOR_BIND": "127.0.0.1:0",
    }
    product = Product(build=todays_build(), store=SQLITE, database_url=url, folder=folder, settings=settings)
    try:
        product.migrate()
        product.serve("api", "api")
        wire = http.client.HTTPConnection(urlsplit(product.url).netloc)
        kinds = _kinds(wire, owner)
        before = len(product.processes["api"].output)
        sent = _sent(wire, _asked(url), kinds, requests)
        wire.close()
        product.stop()
        return _judged(sent, kinds, (folder / "api.log").read_text()[before:])
    finally:
        product.kill()


def _asked(url: str) -> list[tuple[str, str]]:
    """Return method and path of every operation, as today's code has them."""
    services = open_services(load_settings({}, database_url=url))
    try:
        listed = operations(create_app(services))
    finally:
        services.store.close()
    return [(each.method, each.path.format(**_FILLED)) for each in listed if each.path not in PROBES]


def _kinds(wire: http.client.HTTPConnection, owner: str) -> dict[str, str]:
    def made(name: str, **fields: str) -> str:
        body = json.dumps({"name": name, "role": "admin", **fields})
        headers = {"Authorization": f"Bearer {owner}", "Content-Type": "application/json"}
        wire.request("POST", "/v1/keys", body, headers)
        key: str = json.loads(wire.getresponse().read())["key"]
        return key

    revoked, expired, wrong = made("revoked"), made("expired", expires="1s"), new_key()
    wire.request("DELETE", "/v1/keys/revoked", headers={"Authorization": f"Bearer {owner}"})
    wire.getresponse().read()
    time.sleep(2)
    return {"wrong": wrong, "revoked": revoked, "expired": expired, "malformed": wrong[:-1] + "_"}


def _sent(
    wire: http.client.HTTPConnection, asked: list[tuple[str, str]], kinds: dict[str, str], requests: int
) -> dict[str, list[tuple[float, int]]]:
    draw, found = random.Random(13), defaultdict(list)
    order = [(kind, *draw.choice(asked)) for kind in kinds for _ in range(requests // len(kinds))]
    draw.shuffle(order)
    for kind, method, path in order:
        begun = time.perf_counter()
        wire.request(method, path, headers={"Authorization": f"Bearer {kinds[kind]}"})
        answer = wire.getresponse()
        answer.read()
        found[kind].append((time.perf_counter() - begun, answer.status))
    return found


def _judged(sent: dict[str, list[tuple[float, int]]], kinds: dict[str, str], text: str) -> dict[str, object]:
    medians = {kind: statistics.median(took for took, _ in each) for kind, each in sent.items()}
    tails = {kind: sorted(took for took, _ in each)[len(each) * 99 // 100] for kind, each in sent.items()}
    others = sum(status != 401 for each in sent.values() for _, status in each)
    denied, leaked = text.count('"event":"access.denied"'), any(key in text for key in kinds.values())
    apart = max(medians.values()) / min(medians.values())
    tail = max(tails[kind] / medians[kind] for kind in kinds)
    count = sum(map(len, sent.values()))
    return {
        "good": not others and denied == count and not leaked and apart <= MEDIANS_APART and tail <= TAIL,
        "requests": count,
        "not_401": others,
        "lines": denied,
        "leaked": leaked,
        "medians_apart": round(apart, 3),
        "p99_over_median": round(tail, 2),
        "median_us": {kind: round(took * 1e6) for kind, took in medians.items()},
        "p99_us": {kind: round(took * 1e6) for kind, took in tails.items()},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
