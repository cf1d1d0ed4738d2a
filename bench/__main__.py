"""``./dev bench NAME ARGS``; without a name, what there is."""

from __future__ import annotations

import gc
import sys
from itertools import takewhile

from bench import audit, bad_credentials, dead_worker, page, under_load, watching
from bench.watchers import comparison as watchers

_BENCHMARKS = {
    "audit": (audit.main, audit.SUMMARY),
    "dead-worker": (dead_worker.main, dead_worker.SUMMARY),
    "page": (page.main, page.SUMMARY),
    "refusals": (bad_credentials.main, bad_credentials.SUMMARY),
    "watchers": (watchers.main, watchers.SUMMARY),
    "watching": (watching.main, watching.SUMMARY),
}


def main(args: list[str]) -> int:
    """Run the benchmark of that name, or list all."""
    gc.freeze()  # as the command line does
    if args and args[0] in _BENCHMARKS:
        run, _ = _BENCHMARKS[args[0]]
        return run(args[1:])
    loads = list(takewhile(lambda word: word in under_load.PARTS, args))
    if loads:
        return under_load.main(loads, args[len(loads) :])
    every = {name: summary for name, (_, summary) in {**_BENCHMARKS, **under_load.PARTS}.items()}
    listed = "\n".join(f"  {name:<12} {summary}" for name, summary in every.items())
    together = ", ".join(under_load.PARTS)
    text = f"usage: ./dev bench NAME [--help]\n\n{listed}\n\nSeveral of {together} may be named: one run."
    if args and args[0] not in ("-h", "--help", "help"):
        print(f"./dev bench: there is no benchmark {args[0]!r}.\n\n{text}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
