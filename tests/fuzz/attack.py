"""Schemathesis against a running API: every operation of its OpenAPI document, with good and bad data, in sequences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("schemathesis")
HOOKS = "tests.fuzz.schemathesis_hooks"
CONFIG = Path(__file__).with_name("schemathesis.toml")
_ROOT = Path(__file__).parents[2]
_CASES = re.compile(r"(\d+) generated")
_OPERATION = re.compile(r"_{3,} (\S.*\S) _{3,}")
_FAILURE = "- ST"


@dataclass(frozen=True)
class Attack:
    """How a run went: its cases, and all it said."""

    cases: int
    good: bool
    said: str

    @property
    def findings(self) -> list[str]:
        """One line for each failure: the operation, the check, its first words; without any, what was said last."""
        if self.good:
            return []
        return list(_failures(self.said.splitlines())) or [f"schemathesis did not end well: {self.said[-2000:]}"]


def _failures(lines: Sequence[str]) -> Iterator[str]:
    operation = ""
    for number, line in enumerate(lines):
        named = _OPERATION.fullmatch(line)
        if named is not None:
            operation = named[1]
        elif line.startswith(_FAILURE) and operation:
            words = next((said.strip() for said in lines[number + 1 :] if said.strip()), "")
            yield f"{operation}: {line.removeprefix('- ')}: {words}"


def attack(url: str, *, seconds: int, examples: int, seed: int) -> Attack:
    """Run all checks, two of them replaced by ours (``schemathesis.toml``).

    A stream never ends, so it is left to tests of its own.
    """
    words = [
        *("--config-file", str(CONFIG)),
        *("run", f"{url}/openapi.json"),
        *("--exclude-path", "/v1/events/stream", "--max-examples", str(examples), "--max-time", str(seconds)),
        *("--seed", str(seed), "--no-shrink", "--request-timeout", "30", "--continue-on-failure"),
        *("--generation-database", "none", "--warnings", "off"),
    ]
    ran = subprocess.run(
        [str(PROGRAM), *words],
        cwd=_ROOT,
        env=os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(_ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = ran.stdout + ran.stderr
    cases = _CASES.search(said)
    return Attack(cases=int(cases[1]) if cases else 0, good=ran.returncode == 0, said=said)
