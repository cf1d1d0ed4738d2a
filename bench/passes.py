"""What goes over the whole log once: replay and export, each against reading all rows through the same driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from bench.ratios import Bar, LogIsNotGood, Ratio, Run
from bench.statements import whole_log
from orchestrator.history.export import export
from orchestrator.history.replay import replay
from orchestrator.ports.store import EventStore
from orchestrator.storage.opening import open_store

_ROOT = Path(__file__).resolve().parent.parent
_FLAT_MIB = 16.0


def measure_passes(run: Run) -> Iterator[Ratio]:
    """Measure replay and export."""
    with closing(open_store(run.url)) as store:
        yield _pass(run, "replay", 0.25, partial(_replay, store))
        grown = _memory_of_export(run.url)
        note = f"memory grew by {grown:.1f} MiB after a tenth{'' if grown <= _FLAT_MIB else ': NOT FLAT'}"
        yield _pass(run, "export", 0.5, partial(_export, store), note)


def _pass(run: Run, what: str, limit: float, ours: partial[None], note: str = "") -> Ratio:
    ours_s, other_s = run.in_turns([ours], [partial(bare_read, run.url)], rounds=run.passes)
    return Ratio(
        what=what,
        database=run.database,
        ours_s=ours_s,
        against="bare read of all rows",
        other_s=other_s,
        bar=Bar.SPEED_AT_LEAST,
        limit=limit,
        note=note,
    )


def bare_read(url: str) -> None:
    """Read all columns of all events, in order, through the raw driver, and do nothing with them."""
    for _ in whole_log(url):
        pass


def _replay(store: EventStore) -> None:
    report = replay(store)
    if report.differences:
        raise LogIsNotGood(
            f"{len(report.differences)} rows differ, the first: {report.differences[0].table} "
            f"{report.differences[0].id}; run again with --fresh to make the log anew"
        )


def _export(store: EventStore) -> None:
    """Export to where nothing is kept: the disk is not what is measured."""
    with Path(os.devnull).open("w", encoding="utf-8", newline="\n") as nowhere:
        export(store, nowhere.write)


def _memory_of_export(url: str) -> float:
    """Return by how many MiB a fresh process grows at most between a tenth of an export and its end."""
    command = [sys.executable, "-m", "bench.memory_of_export", url]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    grown: float = json.loads(done.stdout)["grown_mib"]
    return grown
