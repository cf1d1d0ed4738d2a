"""The benchmarks that put load on running processes: their command line, and what is made of what they find."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import drain, fold, http_writes, ingest, keyed_writes, lateness, processes, scale
from bench.builds import NoBuild, older_build, todays_build
from bench.figures import tables
from bench.http_load import Refused
from bench.machine import ROOT, described
from bench.peers import comparison
from bench.run import Run

PARTS: dict[str, tuple[Callable[[Run], None], str]] = {
    "http": (http_writes.measure, http_writes.SUMMARY),
    "fold": (fold.measure, fold.SUMMARY),
    "drain": (drain.measure, drain.SUMMARY),
    "lateness": (lateness.measure, lateness.SUMMARY),
    "ingest": (ingest.measure, ingest.SUMMARY),
    "keys": (keyed_writes.measure, keyed_writes.SUMMARY),
    "processes": (processes.measure, processes.SUMMARY),
    "scale": (scale.measure, scale.SUMMARY),
    "peers": (comparison.measure, comparison.SUMMARY),
}

_MINUTES, _QUICK_MINUTES = 10.0, 0.3
_HISTORY = (100_000, 1_000_000)


def main(names: Sequence[str], args: Sequence[str]) -> int:
    """Measure the named ones in one run and print it. Returns 1 for a broken gate or, if strict, a missed bar."""
    given = _parser(names).parse_args(args)
    minutes = given.minutes if given.minutes is not None else (_QUICK_MINUTES if given.quick else _MINUTES)
    history = tuple(sorted({*_HISTORY, *(given.history or ())}))
    run = Run(builds=(todays_build(),), kept=given.folder, quick=given.quick, minutes=minutes, history=history)
    try:
        if given.against:
            run = replace(run, builds=(run.today, older_build(given.against, given.folder, run.say)))
        for name in names:
            PARTS[name][0](run)
    except (NoBuild, Refused) as error:
        run.say(str(error))
        return 1
    plain = {
        "parts": list(names),
        **described(),
        "against": given.against,
        "quick": given.quick,
        **run.findings.plain(),
    }
    if given.write_json:
        given.write_json.write_text(json.dumps(plain, indent=1) + "\n")
    print(json.dumps(plain, indent=1) if given.json else tables(plain))
    broken = not all(gate.holds for gate in run.findings.gates)
    return 1 if broken or (given.strict and not run.findings.good) else 0


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    about = "; ".join(f"{name}: {PARTS[name][1]}" for name in names)
    parser = argparse.ArgumentParser(prog=f"./dev bench {' '.join(names)}", description=about)
    parser.add_argument("--against", metavar="GITREV", help="pair today's code with an older revision, in turns")
    parser.add_argument("--quick", action="store_true", help="smaller and less exact")
    parser.add_argument("--minutes", type=float, help=f"scale: how long the steady load lasts ({_MINUTES:g})")
    parser.add_argument(
        "--history", type=int, action="append", metavar="EVENTS", help="scale: a longer history too, as 10000000"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where older builds are kept (.bench)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write-json", type=Path, metavar="FILE", help="write the JSON to a file too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    return parser
