"""What is measured: today's code, or an older revision of this repository in a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from bench.machine import ROOT, commit


class NoBuild(Exception):
    """The text says why an older revision can't be had."""


@dataclass(frozen=True)
class Build:
    """An installed version of the product. ``name`` is its commit."""

    name: str
    python: Path

    @property
    def orchestrator(self) -> Path:
        """Return its command."""
        return self.python.with_name("orchestrator")

    @property
    def is_todays(self) -> bool:
        """True for the code of this very working tree."""
        return self.python == Path(sys.executable)


def todays_build() -> Build:
    """Return the code that this benchmark is part of."""
    return Build(name=commit(), python=Path(sys.executable))


def older_build(revision: str, folder: Path, say: Callable[[str], None]) -> Build:
    """Return an older revision, installed below ``folder`` with the newest dependencies that it allows.

    It is kept there for the next run. Raises ``NoBuild`` with what git or pip says.
    """
    name = _run("git", "rev-parse", "--short", "--verify", f"{revision}^{{commit}}").decode().strip()
    kept = folder / "builds" / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    build = Build(name=name, python=kept / "venv" / "bin" / "python")
    made = kept / "made"
    if made.exists():
        return build
    say(f"installing {name} into {kept.relative_to(folder)} (once)")
    shutil.rmtree(kept, ignore_errors=True)
    (kept / "source").mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(_run("git", "archive", "--format=tar", name))) as packed:
        packed.extractall(kept / "source", filter="data")
    _run(sys.executable, "-m", "venv", str(kept / "venv"))
    _run(str(build.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(kept / "source"))
    made.touch()
    return build


def _run(*words: str) -> bytes:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_TARGET")}
    ran = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    if ran.returncode != 0:
        raise NoBuild(f"{' '.join(words[:3])}: {ran.stderr.decode(errors='replace').strip()[-800:]}")
    return ran.stdout
