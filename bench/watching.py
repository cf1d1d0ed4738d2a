"""What a watch costs and misses: ready on a large folder, random changes against a second look, and without notices.

``without a watch`` runs in a user namespace of its own whose limit of kernel watches is 10.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.sources.folder import FolderWatcher, WatchedWrite, watch_folder
from tests.sources.random_changes import RandomChanges

SUMMARY = "how soon a folder is watched, what a watch misses, how soon it tells"

_FOLDERS, _FILES = 4_000, 25
_READY_MOST_S, _TELL_MOST_S = 2.0, 0.1
_POLLED_MOST_S, _POLLED_CORE_MOST = 3.0, 0.3
_POLLED_FOR_S = 20.0


def main(args: list[str]) -> int:
    """Measure, print; 1 if something is over what docs/up.md says, or was missed."""
    parser = argparse.ArgumentParser(prog="./dev bench watching", description=SUMMARY)
    parser.add_argument("--changes", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--polled", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.polled:
        return 0 if _polled(options.polled) else 1
    with TemporaryDirectory() as place:
        large = Path(place, "large")
        _make(large)
        good = [_ready(large), _told(large), _random_changes(Path(place), options.seed, options.changes)]
        good.append(_without_a_watch(large))
    return 0 if all(good) else 1


def _make(large: Path) -> None:
    for number in range(_FOLDERS):
        folder = large / f"p{number // 100}" / f"d{number}"
        folder.mkdir(parents=True)
        for file in range(_FILES):
            (folder / f"f{file}.py").write_text("x")
    (large / ".gitignore").write_text("*.log\n/build/\n*.pyc\n!keep.log\ndist/\n.env\n")


def _ready(large: Path) -> bool:
    took_s = []
    for _ in range(5):
        began_s = time.monotonic()
        FolderWatcher(large).close()
        took_s.append(time.monotonic() - began_s)
    return _tell(
        f"{_FOLDERS:,} folders, {_FOLDERS * _FILES:,} files: ready (least, median of 5)",
        min(took_s),
        statistics.median(took_s),
        _READY_MOST_S,
    )


def _told(large: Path) -> bool:
    """From the end of a write to the call of the sink."""
    took_s: list[float] = []
    came = threading.Event()

    def sink(writes: Sequence[WatchedWrite]) -> None:
        came.set()

    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=watch_folder, args=(large, sink), kwargs={"stop": stop, "ready": ready})
    thread.start()
    ready.wait()
    for number in range(200):
        came.clear()
        (large / "p7/d707/f3.py").write_text(str(number))
        began_s = time.monotonic()
        came.wait()
        took_s.append(time.monotonic() - began_s)
    stop.set()
    thread.join()
    p99_s = statistics.quantiles(took_s, n=100)[98]
    return _tell("a write is given to the sink after (median, p99)", statistics.median(took_s), p99_s, _TELL_MOST_S)


def _random_changes(place: Path, seed: int, count: int) -> bool:
    changes = RandomChanges(random.Random(seed), place)
    began_s = time.monotonic()
    for _ in range(count // 20):
        changes.run(20)
    changes.close()
    wrong = len(changes.missed) + len(changes.differences)
    print(
        f"{count:,} random changes, seed {seed}, {time.monotonic() - began_s:.0f} s: {wrong} missed or told otherwise"
    )
    return wrong == 0


def _without_a_watch(large: Path) -> bool:
    again = f"exec {sys.executable} -m bench watching --polled {large}"
    words = ["unshare", "-Ur", "sh", "-c", f"echo 10 > /proc/sys/user/max_inotify_watches; {again}"]
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode != 0:
        print("without a watch: not tried, the kernel gives no user namespace")
        return True
    return subprocess.run(words, check=False).returncode == 0


def _polled(large: Path) -> bool:
    stop = threading.Event()
    waited_s: list[float] = []
    with FolderWatcher(large) as watcher:
        began_s, busy_s = time.monotonic(), time.thread_time()
        while time.monotonic() < began_s + _POLLED_FOR_S:
            name = f"p{len(waited_s) % 40}/d{(len(waited_s) % 40) * 100}/f3.py"
            (large / name).write_text(os.urandom(8).hex())
            written_s = time.monotonic()
            while not any(write.path == name for write in watcher.take(stop)):
                pass
            waited_s.append(time.monotonic() - written_s)
        core = (time.thread_time() - busy_s) / (time.monotonic() - began_s)
    print(f"without a watch: {core:.2f} of a core (most {_POLLED_CORE_MOST})")
    longest_s = max(waited_s)
    soon = _tell(
        "without a watch: a write is seen after (median, max)", statistics.median(waited_s), longest_s, _POLLED_MOST_S
    )
    return soon and core <= _POLLED_CORE_MOST


def _tell(what: str, usual_s: float, worst_s: float, most_s: float) -> bool:
    print(f"{what}: {usual_s:.3f} s, {worst_s:.3f} s (most {most_s} s)")
    return worst_s <= most_s
