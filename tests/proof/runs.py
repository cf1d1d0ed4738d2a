"""The figures of runs, as ``./dev sim``, ``chaos`` and ``fuzz`` wrote them, added up where there are several."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]


class NoFigures(Exception):
    """A folder without what the page is made of."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What the files of a folder say: ``sim-*.json``, ``mutants.json``, ``chaos-*.json``, ``fuzz-*.json``."""

    simulations: Sequence[Figures]
    mutants: Sequence[Figures]
    chaos: Sequence[Figures]
    fuzz: Sequence[Figures]

    @property
    def newest(self) -> str:
        """Return the day of the newest run."""
        return max(str(run.get("date", "")) for run in (*self.simulations, *self.chaos, *self.fuzz))


def read_runs(folder: Path) -> Runs:
    """Read a folder's figures. Raises ``NoFigures`` where a kind is missing."""
    found = {kind: _read(folder, f"{kind}*.json") for kind in ("sim-", "mutants", "chaos-", "fuzz-")}
    missing = [kind.rstrip("-") for kind, files in found.items() if not files]
    if missing:
        raise NoFigures(f"{folder} holds no figures of {', '.join(missing)}; ./dev proof without --from makes them")
    return Runs(
        simulations=sorted(found["sim-"], key=lambda run: int(run["first_seed"])),
        mutants=found["mutants"][-1],
        chaos=found["chaos-"],
        fuzz=found["fuzz-"],
    )


def _read(folder: Path, pattern: str) -> list[Any]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(pattern))]


def broker_of(run: Figures) -> str:
    """Return which broker a run of chaos broke. The first runs knew one only, and do not name it."""
    return str(run.get("broker", "redis"))


def total(runs: Iterable[Figures], name: str) -> Any:
    """Return the sum of one figure."""
    return sum(run[name] for run in runs)


def counted(runs: Iterable[Figures], name: str) -> Counter[str]:
    """Return the sum of one table of counts."""
    sums: Counter[str] = Counter()
    for run in runs:
        sums.update(run[name])
    return sums


def seed_ranges(runs: Sequence[Figures]) -> str:
    """Return the seeds as ranges; those that join are one."""
    ranges: list[list[int]] = []
    for run in runs:
        if ranges and run["first_seed"] == ranges[-1][1] + 1:
            ranges[-1][1] = run["last_seed"]
        else:
            ranges.append([run["first_seed"], run["last_seed"]])
    return ", ".join(f"{first} to {last}" for first, last in ranges)


def commits(runs: Iterable[Figures]) -> str:
    """Return the commits that were run, each once."""
    return ", ".join(f"`{commit}`" for commit in dict.fromkeys(run["commit"] or "unknown" for run in runs))
