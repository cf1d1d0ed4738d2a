"""``./dev bench page``: docs/performance.md from the figures of runs, which are kept beside it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.bars import bars
from bench.curves import curves
from bench.figures import tables
from bench.machine import ROOT

SUMMARY = "docs/performance.md from the figures in docs/performance (of runs with --write-json)"
PAGE = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "docs" / "performance"
NOTES = FIGURES / "where_time_goes.md"

_HEAD = """\
# How fast it is
Made by `./dev bench page` from the figures that the runs wrote ([performance/](performance)); only the last section is
written by hand. Every figure stands beside its peer or its limit, measured in turn with it in the same run, on servers
that the benchmark starts itself with durable settings: what counts is the ratio, since machines differ. A figure that
misses what is asked of it says MISSED.
"""


def main(args: Sequence[str]) -> int:
    """Write the page and its plots; return 2 where there are no figures."""
    parser = argparse.ArgumentParser(prog="./dev bench page", description=__doc__)
    parser.parse_args(args)
    runs = read_runs(FIGURES)
    if not runs:
        sys.stderr.write(f"./dev bench page: no figures in {FIGURES}; make some with --write-json FILE\n")
        return 2
    for name, plain in runs.items():
        for file, drawn in plots(name, plain).items():
            (FIGURES / file).write_text(drawn, encoding="utf-8")
    PAGE.write_text(page(runs), encoding="utf-8")
    sys.stdout.write(f"written to {PAGE}\n")
    return 0


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of the runs in a folder, by the name of their file."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def plots(name: str, plain: dict[str, Any]) -> dict[str, str]:
    """Return the plots of a run by the names of their files."""
    grows = {f"{name}_grows.svg": curves(plain["lines"])} if plain["lines"] else {}
    return {f"{name}.svg": bars(plain["figures"]), **grows}


def page(runs: dict[str, dict[str, Any]]) -> str:
    """Return the page as Markdown."""
    parts = [_HEAD.rstrip(), *("\n".join(_run(name, plain)) for name, plain in runs.items())]
    parts.append(NOTES.read_text(encoding="utf-8").rstrip())
    return "\n\n".join(parts) + "\n"


def _run(name: str, plain: dict[str, Any]) -> Iterator[str]:
    words = " ".join(plain["parts"])
    how = f"./dev bench {words}" + (f" --against {plain['against']}" if plain["against"] else "")
    yield f"## {words}"
    how += " --quick" if plain["quick"] else ""
    yield f"`{how}`, commit {plain['commit']}, {plain['date']}, on {plain['machine']}, Python {plain['python']}."
    if any(item["least"] and item["ratio"] for item in plain["figures"]):
        yield ""
        yield f"![each figure beside what is asked of it](performance/{name}.svg)"
    if plain["lines"]:
        yield ""
        yield f"![how it grows](performance/{name}_grows.svg)"
    yield ""
    yield tables(plain)
