"""One save burst, sent to somebody whose worker runs: wait until nothing more happens, and judge the logs."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Meter
from bench.peers.plan import Outcome, Planned, judged, shares, written

_QUIET_S = 1.5
"""Nothing more is expected when each workspace was restarted after its last write and then no restart came for that."""

_LOST_AFTER_S = 12.0
"""What has not come by then, after the last restart, is lost; some workers look only every five or ten seconds."""

_MOST_S = 150.0
_LOOKS_EVERY_S = 0.1


class DidNotRun(Exception):
    """The text says what a runner's process said."""


@dataclass(frozen=True, kw_only=True)
class Raced:
    """An outcome and its cost: CPU seconds of clients, worker and servers for all writes."""

    outcome: Outcome
    cpu_s: float
    others_share: float

    @property
    def cpu_s_a_thousand(self) -> float:
        """Return the CPU seconds a thousand writes."""
        return self.cpu_s / self.outcome.writes * 1000


@dataclass(frozen=True, kw_only=True)
class Runner:
    """How to send a plan, and what to watch. ``client`` returns the command for a plan's file and a log."""

    client: Callable[[Path, Path], Sequence[str]]
    environment: dict[str, str]
    stamps: Path
    watched: Iterable[int]
    folder: Path


def race(runner: Runner, plan: Sequence[Planned], *, clients: int = 1) -> Raced:
    """Send the plan from so many clients and wait until the worker is done. Raises ``DidNotRun``."""
    logs = [runner.folder / f"client-{number}.log" for number in range(clients)]
    meter = Meter(runner.watched)
    clients_cpu = _clients_cpu_s()
    running = []
    for log, share in zip(logs, shares(plan, clients), strict=True):
        words = runner.client(written(share, log.with_suffix(".plan")), log)
        said = log.with_suffix(".said").open("wb")
        running.append(
            (subprocess.Popen(words, env=runner.environment, cwd=runner.folder, stdout=said, stderr=said), log)
        )
    for process, log in running:
        if process.wait(_MOST_S) != 0:
            raise DidNotRun(log.with_suffix(".said").read_text()[-800:])
    _await_quiet(runner.stamps, logs)
    own_s = meter.own_s() + _clients_cpu_s() - clients_cpu
    return Raced(outcome=judged(logs, runner.stamps), cpu_s=own_s, others_share=meter.others_share(own_s=own_s))


def _await_quiet(stamps: Path, logs: Sequence[Path]) -> None:
    size, since, until = -1, time.monotonic(), time.monotonic() + _MOST_S
    while time.monotonic() < until:
        time.sleep(_LOOKS_EVERY_S)
        now = stamps.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        silent_s = time.monotonic() - since
        if silent_s > _LOST_AFTER_S or (silent_s > _QUIET_S and judged(logs, stamps).lost == 0):
            return


def _clients_cpu_s() -> float:
    """Return the CPU of all children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
