"""What every benchmark under load is given, and what it adds its findings to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.builds import Build
from bench.figures import Findings


@dataclass(frozen=True, kw_only=True)
class Run:
    """``builds``: today's code and, where one is named, an older one that it is paired with.

    ``quick`` trades exactness for time. ``kept`` is a folder whose content outlives the run: installed peers and
    older builds. ``minutes`` is how long a steady load lasts, ``history`` which lengths of log are compared.
    """

    builds: tuple[Build, ...]
    kept: Path
    quick: bool = False
    minutes: float = 10.0
    history: tuple[int, ...] = (100_000, 1_000_000)
    findings: Findings = field(default_factory=Findings)

    @property
    def today(self) -> Build:
        """Return today's build."""
        return self.builds[0]

    @property
    def older(self) -> Build | None:
        """Return the build that today's is paired with."""
        return self.builds[1] if len(self.builds) > 1 else None

    def of(self, whole: int, quick: int) -> int:
        """Return a size: of a whole run, or of a quick one."""
        return quick if self.quick else whole

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield an empty folder that ends with the block."""
        with TemporaryDirectory(prefix="bench-run-") as name:
            yield Path(name)

    def say(self, text: str) -> None:
        """Tell whoever waits how far it is."""
        print(text, file=sys.stderr, flush=True)
