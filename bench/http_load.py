"""Load on an HTTP server from the generator, in a process of its own, and what both cost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.machine import ROOT, Meter


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked: ``connections`` that each wait for their answer, over ``workspaces``, ``batch`` writes a request.

    ``first`` is the number of the first workspace, ``files`` how many each has that are written in turn. ``key``: that
    of the writers; none if empty.
    """

    connections: int
    workspaces: int
    seconds: float
    batch: int = 1
    first: int = 0
    files: int = 17
    wanted: int = 202
    key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of it. ``server_cpu_s`` is that of the processes that were watched.

    ``generator_most`` is how many a second the generator could have asked if it had had nothing to wait for;
    ``others_share`` the part of the machine that went to neither it nor the server.
    """

    answers: int
    writes: int
    took_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    server_cpu_s: float
    generator_most: float
    others_share: float

    @property
    def a_second(self) -> float:
        """Return the answers a second."""
        return self.answers / self.took_s

    @property
    def writes_a_second(self) -> float:
        """Return the writes a second."""
        return self.writes / self.took_s

    @property
    def cpu_us(self) -> float:
        """Return the server's CPU microseconds a write, which is CPU milliseconds a thousand."""
        return self.server_cpu_s / self.writes * 1e6


class Refused(Exception):
    """The server did not answer as it must under load. The text has its first such answer."""


def put_load(url: str, load: Load, *, watched: Iterable[int], more_urls: Sequence[str] = ()) -> Answered:
    """Put a load on ``url`` and return what came of it. Raises ``Refused``.

    ``more_urls`` are those of further processes on the same host: the connections are spread over all.
    """
    where = urlsplit(url)
    order = {
        "host": where.hostname,
        "ports": [urlsplit(one).port for one in (url, *more_urls)],
        "connections": load.connections,
        "workspaces": load.workspaces,
        "seconds": load.seconds,
        "batch": load.batch,
        "first": load.first,
        "files": load.files,
        "wanted": load.wanted,
        "key": load.key,
    }
    meter = Meter(watched)
    ran = subprocess.run(
        [sys.executable, "-m", "bench.generator"],
        cwd=ROOT,
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise Refused(f"{url}: the generator ended with {ran.stderr.strip()[-600:]}")
    told = json.loads(ran.stdout)
    if set(told["statuses"]) != {str(load.wanted)}:
        raise Refused(f"{url}: answers {told['statuses']}, the first other one:\n{told['refused']}")
    cpu_s = meter.own_s()
    return Answered(
        answers=told["answers"],
        writes=told["answers"] * load.batch,
        took_s=told["took_s"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        worst_ms=told["worst_ms"],
        server_cpu_s=cpu_s,
        generator_most=told["answers"] / told["cpu_s"],
        others_share=meter.others_share(own_s=cpu_s + told["cpu_s"]),
    )
