"""Many seeds: run, counted, and the figures that are published."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.boundaries import ALL
from tests.simulation.hub import SECOND
from tests.simulation.judge import Finding
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import draw_plan
from tests.simulation.planting import planted
from tests.simulation.run import Outcome, simulate

_TOGETHER = 50
_COLLECTED_TOGETHER = 10
"""The garbage of so many runs is collected at once. Fifty at once took 76 MB instead of 66, and no less time."""
_HOUR = 3600 * SECOND


@dataclass
class Figures:
    """Sums over seeds. ``failures``: each seed that broke a promise, and the first thing it broke."""

    seeds: int = 0
    simulated: int = 0
    events: int = 0
    crossings: int = 0
    acts: int = 0
    acknowledged: int = 0
    unknown: int = 0
    refused_acts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    crashed_at: Counter[str] = field(default_factory=Counter)
    interleavings: set[int] = field(default_factory=set)
    longest_healing: tuple[int, int] = (0, 0)
    """The longest time from the last fault until nothing waited, and what was allowed in that run."""
    least: int = 1 << 62
    fewest_faults: int = 1 << 62
    processor_s: float = 0.0
    failures: list[tuple[int, list[Finding]]] = field(default_factory=list)

    def take(self, seed: int, outcome: Outcome) -> None:
        """Add one run."""
        self.seeds += 1
        self.simulated += outcome.simulated
        self.events += outcome.events
        self.crossings += outcome.tally.crossings
        self.acts += outcome.acts
        self.refused_acts += outcome.refused_acts
        self.acknowledged += outcome.acknowledged
        self.unknown += outcome.unknown
        self.faults.update(outcome.tally.faults)
        self.crashed_at.update(outcome.tally.crashed_at)
        self.interleavings.add(outcome.tally.interleaving)
        self.longest_healing = max(self.longest_healing, (outcome.healed_in, outcome.bound))
        self.least = min(self.least, outcome.simulated)
        self.fewest_faults = min(self.fewest_faults, outcome.tally.faults.total())
        if outcome.findings:
            self.failures.append((seed, outcome.findings))

    def add(self, other: Figures) -> None:
        """Add what another process has run."""
        for name in ("seeds", "simulated", "events", "crossings", "acts", "acknowledged", "unknown", "refused_acts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.processor_s += other.processor_s
        self.faults.update(other.faults)
        self.crashed_at.update(other.crashed_at)
        self.interleavings |= other.interleavings
        self.longest_healing = max(self.longest_healing, other.longest_healing)
        self.least, self.fewest_faults = min(self.least, other.least), min(self.fewest_faults, other.fewest_faults)
        self.failures = sorted([*self.failures, *other.failures])

    @property
    def hours(self) -> float:
        """Return how many hours were simulated."""
        return self.simulated / _HOUR

    @property
    def hours_a_second(self) -> float:
        """Return how many hours one second of one processor simulates."""
        return self.hours / self.processor_s if self.processor_s else 0.0

    def crash_points(self) -> dict[str, int]:
        """Return how often a process was killed at each boundary, those that were never hit too."""
        return {boundary.name: self.crashed_at[boundary.name] for boundary in ALL}

    def plain(self) -> dict[str, object]:
        """Return the figures as JSON values."""
        points = self.crash_points()
        return {
            "seeds": self.seeds,
            "virtual_hours": round(self.hours, 1),
            "processor_s": round(self.processor_s, 3),
            "virtual_hours_a_second": round(self.hours_a_second, 1),
            "shortest_run_minutes": round(self.least / SECOND / 60, 1),
            "events": self.events,
            "crossings": self.crossings,
            "acts": self.acts,
            "acts_refused_by_fence": self.refused_acts,
            "acknowledged": self.acknowledged,
            "acknowledged_lost": sum(f.promise == "acknowledged" for _, found in self.failures for f in found),
            "outcome_unknown": self.unknown,
            "faults": dict(self.faults.most_common()),
            "faults_in_all": self.faults.total(),
            "fewest_faults_in_a_run": self.fewest_faults,
            "crash_points": points,
            "crash_points_hit": sum(times > 0 for times in points.values()),
            "crash_points_in_all": len(points),
            "distinct_interleavings": len(self.interleavings),
            "longest_healing_s": round(self.longest_healing[0] / SECOND, 1),
            "its_bound_s": round(self.longest_healing[1] / SECOND, 1),
            "violations": [
                {"seed": seed, "promise": finding.promise, "text": finding.text}
                for seed, found in self.failures
                for finding in found
            ],
        }


def run_seeds(seeds: Sequence[int], mutant: str | None = None) -> Figures:
    """Run seeds in this process."""
    figures = Figures()
    plant = MUTANTS[mutant].plant if mutant is not None else None
    begun = time.process_time()
    with planted(plant), _without_collector():
        for number, seed in enumerate(seeds, 1):
            figures.take(seed, simulate(draw_plan(seed)))
            if number % _COLLECTED_TOGETHER == 0:
                gc.collect()
    figures.processor_s = time.process_time() - begun
    return figures


class _without_collector:  # noqa: N801 (reads as what it does)
    """Leave cyclic garbage alone for a while: a run is short, and collecting inside of it costs a tenth."""

    def __enter__(self) -> None:
        self._was = gc.isenabled()
        gc.disable()
        gc.freeze()

    def __exit__(self, *raised: object) -> None:
        gc.unfreeze()
        if self._was:
            gc.enable()


def campaign(seeds: Sequence[int], *, jobs: int, mutant: str | None = None) -> Iterator[Figures]:
    """Run seeds in so many processes; yield the sums so far, again and again, the last of them whole."""
    whole = Figures()
    parts = [seeds[start : start + _TOGETHER] for start in range(0, len(seeds), _TOGETHER)]
    if jobs == 1:
        for part in parts:
            whole.add(run_seeds(part, mutant))
            yield whole
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for figures in pool.map(run_seeds, parts, [mutant] * len(parts)):
            whole.add(figures)
            yield whole


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
