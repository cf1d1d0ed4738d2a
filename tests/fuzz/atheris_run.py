"""``python -m tests.fuzz.atheris_run TARGET SECONDS SEED FOLDER``: one decoder under libFuzzer, guided by its branches.

``FOLDER`` keeps the corpus, and an input that the decoder may not fail at; the exit code is not 0 then. The last lines
are libFuzzer's figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["orchestrator"]):
    from tests.fuzz.targets import TARGETS

_LONGEST_S = 10
_MOST_MB = 1_024


def main(name: str, seconds: str, seed: str, folder: str) -> None:
    """Fuzz until the time is over; never returns. A hang is 10 s for one input."""
    target = TARGETS[name]
    for number, given in enumerate(target.seeds):
        (Path(folder) / f"seed-{number}").write_bytes(given)

    def decode(given: bytes) -> None:
        target.try_(given)

    limits = ["-max_len=4096", f"-timeout={_LONGEST_S}", f"-rss_limit_mb={_MOST_MB}", f"-artifact_prefix={folder}/"]
    words = [f"-max_total_time={seconds}", f"-seed={seed}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *words, *limits, folder], decode)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
