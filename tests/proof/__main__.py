"""Make ``docs/proof.md``: run every lane for a while, or take the figures of runs that were made before.

The figures are kept beside the page, so that everyone can make it again from them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.proof.page import page
from tests.proof.runs import NoFigures, read_runs
from tests.servers.brokers import why_no_rabbitmq

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "docs" / "proof.md"
FIGURES = _ROOT / "docs" / "proof"


def main(args: Sequence[str]) -> int:
    """Return 0 once the page is written; 1 if a lane found something (it is on the page); 2 without figures."""
    parser = argparse.ArgumentParser(prog="./dev proof", description=__doc__)
    parser.add_argument(
        "--from", dest="folder", type=Path, metavar="DIR", help="figures of earlier runs, as --keep leaves them"
    )
    parser.add_argument(
        "--keep", type=Path, default=FIGURES, metavar="DIR", help="where the lanes' go, else docs/proof"
    )
    parser.add_argument("--seeds", type=int, default=2_000, metavar="N", help="seeds to simulate (2000)")
    parser.add_argument("--minutes", type=float, default=2.0, metavar="N", help="of chaos, and of bad input (2)")
    parser.add_argument("--output", type=Path, default=PAGE, metavar="FILE", help="else docs/proof.md")
    wanted = parser.parse_args(args)
    folder, code = wanted.folder or wanted.keep, 0
    if wanted.folder is None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.json"):
            old.unlink()
        code = run_lanes(folder, seeds=wanted.seeds, minutes=wanted.minutes)
    try:
        text = page(read_runs(folder))
    except NoFigures as missing:
        sys.stderr.write(f"./dev proof: {missing}\n")
        return 2
    wanted.output.write_text(text, encoding="utf-8")
    sys.stdout.write(f"written to {wanted.output}\n")
    return code


def _on_rabbitmq(minutes: float) -> tuple[str, ...]:
    return ("chaos", "--broker", "rabbitmq", "--minutes", str(minutes))


def run_lanes(folder: Path, *, seeds: int, minutes: float) -> int:
    """Run the lanes one after the other, each writing its figures; return 1 if one of them found something."""
    lanes = {
        "sim-": ("simulation", "--seeds", f"0-{seeds - 1}"),
        "mutants": ("simulation", "--mutants"),
        "chaos-redis": ("chaos", "--minutes", str(minutes)),
        **({} if why_no_rabbitmq(os.environ) else {"chaos-rabbitmq": _on_rabbitmq(minutes)}),
        "fuzz-": ("fuzz", "--minutes", str(minutes)),
    }
    found = 0
    for name, (lane, *rest) in lanes.items():
        command = [sys.executable, "-m", f"tests.{lane}", *rest, "--json", str((folder / f"{name}.json").resolve())]
        found |= subprocess.run(command, cwd=_ROOT, check=False).returncode != 0
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
