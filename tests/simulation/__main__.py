"""``./dev sim``: run seeds, tell the story of one that fails, show which planted defects are found."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.report import commit
from tests.simulation.campaign import Figures, campaign, processors
from tests.simulation.detection import Detection, detect_all, table
from tests.simulation.hub import SECOND
from tests.simulation.mutants import MUTANTS
from tests.simulation.shrink import shrink

_STORIES_MOST = 3
_LINE_EVERY_S = 60


class Progress:
    """How far a long run is: one line that changes on a terminal, a line a minute in a log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._told_at = time.monotonic()

    def show(self, text: str) -> None:
        """Tell it, if it is time to."""
        if self._terminal:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._told_at >= _LINE_EVERY_S:
            self._told_at = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line that changes."""
        if self._terminal:
            print(file=sys.stderr)


def main(args: Sequence[str]) -> int:
    """Return 0 if every promise held (or every defect was found), 1 if not."""
    options = _options(args)
    if options.mutants:
        return _mutants(options)
    return _seeds(options)


def _options(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev sim", description=__doc__)
    parser.add_argument("--seeds", type=_range, default=range(1_000), metavar="A-B", help="default: 0-999")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; 0: one for each processor")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), metavar="NAME", help="with this defect planted")
    parser.add_argument("--mutants", action="store_true", help="plant every defect in turn and print the table")
    parser.add_argument("--most", type=int, default=2_000, metavar="N", help="seeds at most for each of --mutants")
    parser.add_argument("--story", action="store_true", help="print the timeline even of a seed that holds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(args)
    options.jobs = options.jobs or processors()
    return options


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds; write it like 0-999") from None
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed")
    return found


def _seeds(options: argparse.Namespace) -> int:
    figures, progress = Figures(), Progress()
    for figures in campaign(options.seeds, jobs=options.jobs, mutant=options.mutant):
        progress.show(f"{figures.seeds} of {len(options.seeds)} seeds, {len(figures.failures)} broke a promise")
    progress.end()
    for seed, findings in figures.failures[:_STORIES_MOST]:
        print("\n".join(shrink(seed, findings, options.mutant).lines()))
        print(f"again: ./dev sim --seeds {seed}-{seed}{f' --mutant {options.mutant}' if options.mutant else ''}\n")
    if options.story:
        for seed in options.seeds[:_STORIES_MOST]:
            print("\n".join(shrink(seed, [], options.mutant).lines()))
    if options.json is not None:
        about = {"commit": commit(), "first_seed": options.seeds[0], "last_seed": options.seeds[-1]}
        options.json.write_text(json.dumps(about | figures.plain(), indent=1) + "\n")
    print(_summary(options.seeds, figures))
    return 1 if figures.failures else 0


def _summary(seeds: range, figures: Figures) -> str:
    points = figures.crash_points()
    broke = f"{len(figures.failures)} broke a promise: {', '.join(str(seed) for seed, _ in figures.failures[:10])}"
    return (
        f"seeds {seeds[0]}-{seeds[-1]}: {figures.hours:,.0f} virtual hours ({figures.hours_a_second:.0f} a second of a "
        f"processor), {figures.events:,} events, {figures.faults.total():,} faults of {len(figures.faults)} kinds, "
        f"{sum(times > 0 for times in points.values())} of {len(points)} crash points, "
        f"{len(figures.interleavings):,} interleavings, {figures.acknowledged:,} acknowledged, longest healing "
        f"{figures.longest_healing[0] / SECOND:.0f} s of {figures.longest_healing[1] / SECOND:.0f} s allowed; "
        f"{broke if figures.failures else 'every promise held'}"
    )


def _mutants(options: argparse.Namespace) -> int:
    found: list[Detection] = []
    progress = Progress()
    for detection in detect_all(options.seeds[0], options.most, jobs=options.jobs):
        found.append(detection)
        progress.show(f"{len(found)} of {len(MUTANTS)} defects")
    progress.end()
    print("\n".join(table(found)))
    wrong = [detection.name for detection in found if not detection.right]
    if options.json is not None:
        plain = [
            {
                "name": one.name,
                "breaks": MUTANTS[one.name].breaks,
                "equivalent": MUTANTS[one.name].equivalent,
                "found": one.found,
                "promises": dict(one.promises),
                "median_seeds": one.median,
                "seeds": one.seeds,
                "example": one.example,
            }
            for one in found
        ]
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    planted = sum(mutant.equivalent is None for mutant in MUTANTS.values())
    good = sum(one.found and MUTANTS[one.name].equivalent is None for one in found)
    print(
        f"{good} of {planted} defects found, {len(MUTANTS) - planted} equivalent"
        + (f"; wrong: {', '.join(wrong)}" if wrong else "")
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
