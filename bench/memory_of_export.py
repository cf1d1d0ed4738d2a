"""A process of its own that exports a log to nowhere and says how its peak memory grew: ``URL`` is its argument."""

from __future__ import annotations

import json
import resource
import sys
from contextlib import closing

from orchestrator.history.export import export
from orchestrator.storage.opening import open_store


def peak_mib() -> float:
    """Return the most memory that this process has held so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(url: str) -> None:
    """Export, note the peak at a tenth and at the end."""
    peaks: list[float] = []

    def note(position: int, last: int) -> None:
        if not peaks and position * 10 >= last:
            peaks.append(peak_mib())

    with closing(open_store(url)) as store, open("/dev/null", "w", encoding="utf-8") as nowhere:
        export(store, nowhere.write, progress=note)
    json.dump({"grown_mib": round(peak_mib() - peaks[0], 2), "peak_mib": round(peak_mib(), 1)}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
