"""An executor plug-in that stamps when it was called and when it was done, so that lateness is seen from outside.

``installed`` puts it into a folder as a package's files, for a build of any revision to find on its path.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "stamp"
_FILE, _JOB_S = "BENCH_STAMPS", "BENCH_JOB_S"


def _ports() -> Any:
    """Return the module that says what an executor is: it has moved since the older revisions."""
    try:
        return importlib.import_module("orchestrator.ports.executor")
    except ModuleNotFoundError:
        return importlib.import_module("orchestrator.executor_port")


class StampExecutor:
    """Takes as long as it is told to, and adds ``workspace start end`` (monotonic nanoseconds) to a file."""

    name: str = NAME
    fenced: bool = False

    def __init__(self) -> None:
        self._ports = _ports()
        self._job_s = float(os.environ.get(_JOB_S, "0"))
        self._file = os.open(os.environ.get(_FILE, os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return the target, of which nothing is asked."""
        return dict(target)

    def inspect(self, order: Any) -> str | None:
        """Return None: nothing tells one state from another."""
        return None

    def restart(self, order: Any) -> Any:
        """Do the job and stamp it."""
        began = time.monotonic_ns()
        if self._job_s:
            order.stop.wait(self._job_s)
        os.write(self._file, f"{order.workspace} {began} {time.monotonic_ns()}\n".encode())
        return self._ports.Receipt()

    def probe(self, order: Any, receipt: Any) -> Any:
        """Return READY."""
        return self._ports.Readiness.READY

    def cancel(self, order: Any) -> None:
        """End a restart early, as the older revisions ask; this one looks at ``order.stop`` itself."""


def installed(folder: Path, *, stamps: Path, job_s: float) -> dict[str, str]:
    """Put the plug-in into ``folder``; return the settings with which a product registers workspaces with it."""
    information = folder / "bench_stamp-1.dist-info"
    information.mkdir(parents=True)
    (folder / "bench_stamp.py").write_text(Path(__file__).read_text())
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-stamp\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[orchestrator.executors]\n{NAME} = bench_stamp:StampExecutor\n")
    return {
        "PYTHONPATH": str(folder),
        "ORCHESTRATOR_AUTO_REGISTER": NAME,
        _FILE: str(stamps),
        _JOB_S: f"{job_s:g}",
    }
