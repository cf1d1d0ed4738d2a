"""As the first process of a container: orphans come to us, and are reaped; the end is the child's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.waiting import wait_until

# A sub-reaper gets orphans as the first process does; only that needs no namespace of its own.
PROGRAM = """
import ctypes, os, signal, subprocess, sys
from orchestrator.cli.first_process import go_on_in_child
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
go_on_in_child(os._exit)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
subprocess.run(["sh", "-c", "(sleep 0.05 &) ; (sleep 0.05 &)"], check=True)
subprocess.run(["sh", "-c", "exit 3"], check=False).returncode == 3 or os._exit(9)
open(sys.argv[1], "w").close()
while True:
    signal.pause()
"""


def test_it_reaps_orphans_passes_signals_on_and_ends_as_its_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(mark)]) as first:
        wait_until(mark.exists, what="the child works")
        of_first = psutil.Process(first.pid)
        wait_until(lambda: len(of_first.children()) == 1, what="the orphans are reaped")
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 7
