"""``record_writes`` in one process, of whatever revision's interpreter runs this file.

Run as ``PYTHON bench/ingest_child.py URL CALLERS TOGETHER SECONDS`` with an empty database: so many threads that each
record ``TOGETHER`` writes at a time over 1,000 workspaces. Prints JSON: writes, seconds, CPU seconds of this process.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import logging
import sys
import threading
import time
from typing import Any

WORKSPACES = 1000


def _found(*places: str) -> Any:
    """Return the first of these ``module:name`` that there is: names have moved between revisions."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise LookupError(f"none of {', '.join(places)}")


def _store(url: str) -> Any:
    _found("orchestrator.storage.migrate:upgrade")(url)
    try:
        opened = _found("orchestrator.storage.opening:open_store")
        shares = "shares_commits" in inspect.signature(opened).parameters
        return opened(url, shares_commits=True) if shares else opened(url)  # as the product's own processes do
    except LookupError:
        kind = "sqlite:Sqlite" if url.startswith("sqlite") else "postgres:Postgres"
        return _found(f"orchestrator.storage.{kind}EventStore")(url)


class Callers:
    """Threads that record until the time is over."""

    def __init__(self, store: Any, together: int) -> None:
        self._store, self._together = store, together
        record = importlib.import_module("orchestrator.service.record")
        self._record, self._write = record.record_writes, record.Write
        self._auto = record.AutoRegistration(executor="simulated", target={"delay": "0s"})
        self._ids = _found("orchestrator.time_ordered_ids:TimeOrderedIds", "orchestrator.bootstrap:TimeOrderedIds")()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.stored = 0

    def record(self, names: list[str]) -> None:
        """Record a write of each of these workspaces."""
        writes = [self._write(workspace=name, path="src/app/view.py") for name in names]
        answer, _ = self._record(self._store, writes, actor="local:bench", ids=self._ids, auto=self._auto)
        if answer.refused:
            raise RuntimeError(answer.refused[0])
        with self._lock:
            self.stored += len(writes)

    def until(self, until_s: float) -> None:
        """Record, one call after the other."""
        while time.perf_counter() < until_s:
            first = next(self._numbers) * self._together
            self.record([f"ws-{(first + number) % WORKSPACES:06}" for number in range(self._together)])


def main(url: str, callers: int, together: int, seconds: float) -> int:
    """Register the workspaces, then measure."""
    logging.disable(logging.CRITICAL)
    _found("orchestrator.logs:configure_logs")(form="json", level="error")
    recording = Callers(_store(url), together)
    recording.record([f"ws-{number:06}" for number in range(WORKSPACES)])
    recording.stored = 0
    began, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=recording.until, args=(began + seconds,)) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = {"writes": recording.stored, "took_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    json.dump(result, sys.stdout)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
