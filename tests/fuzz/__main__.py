"""Attack the API and the decoders for a while. The last line is a summary; exit 1 at any finding."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from tests.chaos.report import commit
from tests.fuzz.attack import attack
from tests.fuzz.targets import TARGETS
from tests.system.deployment import Embedded
from tests.system.fork_server import ForkServer

_ROUND_S = 120
"""A run of schemathesis; the next has another seed."""
_EXECUTIONS = re.compile(r"stat::number_of_executed_units: (\d+)")


@dataclass
class Report:
    """What one run of ``./dev fuzz`` did and found."""

    commit: str
    seed: int
    minutes: float
    api_cases: int = 0
    executions: dict[str, int] = field(default_factory=dict)
    """By decoder."""
    not_run: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long: half for the API, half for decoders (2)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="where random input begins")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    wanted = parser.parse_args()
    report = Report(commit=commit(), seed=wanted.seed, minutes=wanted.minutes)
    half_s = max(30, round(30 * wanted.minutes))
    attack_api(report, half_s)
    fuzz_decoders(report, half_s)
    if wanted.json:
        wanted.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    for finding in report.findings:
        say(f"FINDING: {finding}")
    for reason in report.not_run:
        say(f"not run: {reason}")
    sys.stdout.write(summary_of(report) + "\n")
    return 1 if report.findings else 0


def attack_api(report: Report, seconds: int) -> None:
    """Run schemathesis again and again, each time on a fresh data folder and with another seed."""
    forks = ForkServer()
    try:
        for number in range(-(-seconds // _ROUND_S)):
            with TemporaryDirectory(prefix="fuzz-") as folder:
                deployment = Embedded(Path(folder), forks=forks)
                try:
                    deployment.start()
                    deployment.change("ws")
                    within_s = min(_ROUND_S, seconds - number * _ROUND_S)
                    ended = attack(deployment.url, seconds=within_s, examples=50, seed=report.seed + number)
                    deployment.stop()
                finally:
                    deployment.abort()
            report.api_cases += ended.cases
            say(f"API, seed {report.seed + number}: {ended.cases} cases, {'good' if ended.good else 'FAILED'}")
            if not ended.good:
                say(ended.said)
            report.findings += ended.findings
    finally:
        forks.close()


def fuzz_decoders(report: Report, seconds: int) -> None:
    """Give every decoder its share of the time."""
    if importlib.util.find_spec("atheris") is None:
        report.not_run.append("the decoders under atheris: it has no wheel for this Python; Hypothesis is in the tests")
        return
    share_s = max(2, seconds // len(TARGETS))
    for name in TARGETS:
        folder = mkdtemp(prefix="fuzz-")
        words = [sys.executable, "-m", "tests.fuzz.atheris_run", name, str(share_s), str(report.seed), folder]
        ran = _run(words)
        executions = _EXECUTIONS.search(ran.stderr)
        report.executions[name] = int(executions[1]) if executions else 0
        say(f"{name}: {report.executions[name]} executions in {share_s} s, exit code {ran.returncode}")
        if ran.returncode != 0:
            report.findings.append(f"{name}: the input is kept in {folder}\n{(ran.stdout + ran.stderr)[-4000:]}")


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)


def summary_of(report: Report) -> str:
    """Return the last line."""
    return (
        f"fuzz: seed {report.seed}, {report.minutes:g} min; {report.api_cases} API cases with all checks; "
        f"{sum(report.executions.values())} executions of {len(report.executions)} decoders; "
        f"{len(report.findings)} findings"
    )


def say(text: str) -> None:
    """Tell a person how it goes."""
    sys.stderr.write(f"fuzz: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
