"""Which planted defects are found, by which promise, and after how many seeds."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median

from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import draw_plan
from tests.simulation.planting import planted
from tests.simulation.run import simulate

FINDS = 5
"""So many times each is found; the median of the seeds between is told."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What became of one defect. ``gaps``: how many seeds each find took, counted from the one before."""

    name: str
    seeds: int
    gaps: tuple[int, ...]
    promises: tuple[tuple[str, int], ...]
    example: str

    @property
    def found(self) -> bool:
        """True if any seed found it."""
        return bool(self.gaps)

    @property
    def right(self) -> bool:
        """True if it was found, or need not be because it breaks no promise; False also where that proves wrong."""
        return self.found == (MUTANTS[self.name].equivalent is None)

    @property
    def median(self) -> float | None:
        """Return the median of seeds to find it."""
        return median(self.gaps) if self.gaps else None


def detect(name: str, first: int, most: int, finds: int = FINDS) -> Detection:
    """Run seeds from ``first`` on, ``most`` at most, until the defect was found so many times."""
    gaps: list[int] = []
    promises: Counter[str] = Counter()
    example, last, seeds = "", first - 1, 0
    with planted(MUTANTS[name].plant):
        for seed in range(first, first + most):
            seeds += 1
            findings = simulate(draw_plan(seed)).findings
            if findings:
                gaps.append(seed - last)
                last = seed
                promises.update(sorted({finding.promise for finding in findings}))
                example = example or findings[0].text
                if len(gaps) == finds:
                    break
    gc.collect()
    return Detection(name=name, seeds=seeds, gaps=tuple(gaps), promises=tuple(promises.most_common()), example=example)


def detect_all(first: int, most: int, *, jobs: int, finds: int = FINDS) -> Iterator[Detection]:
    """Yield what became of each defect, in order."""
    names = list(MUTANTS)
    if jobs == 1:
        for name in names:
            yield detect(name, first, most, finds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(detect, names, [first] * len(names), [most] * len(names), [finds] * len(names))


def table(detections: list[Detection]) -> Iterator[str]:
    """Yield the table as Markdown: the page has it as it is."""
    yield "| defect | what it breaks | found | by | median seeds |"
    yield "|---|---|---|---|---|"
    for one in detections:
        mutant = MUTANTS[one.name]
        if one.found:
            found, by = "yes", ", ".join(promise for promise, _ in one.promises[:4])
        else:
            found, by = ("equivalent" if mutant.equivalent else f"NO, in {one.seeds}"), "-"
        yield f"| `{one.name}` | {mutant.breaks} | {found} | {by} | {one.median or '-'} |"
    yield ""
    for name, mutant in MUTANTS.items():
        if mutant.equivalent is not None:
            yield f"- `{name}` is equivalent. {mutant.equivalent}"
