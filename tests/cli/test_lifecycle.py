"""The first signal stops a process, whatever its main thread was about when it came."""

from __future__ import annotations

import subprocess
import sys

_SIGNALLED_WITH_THE_LOCK_HELD = """
import signal, sys, threading

class Signalled(threading.Condition):
    sent = False

    def wait(self, timeout=None):
        found = super().wait(timeout)
        if threading.current_thread() is threading.main_thread() and not Signalled.sent:
            Signalled.sent = True
            signal.raise_signal(signal.SIGTERM)
        return found

threading.Condition = Signalled

from orchestrator.cli.lifecycle import Lifecycle

class Alive:
    alive = True

sys.exit(Lifecycle().run({"part": Alive()}, lambda until_s: print("stopped")))
"""
_ENDS_WITHIN_S = 60.0


def test_a_signal_that_comes_while_the_main_thread_holds_a_lock_stops_the_process() -> None:
    """The handler runs between two steps of the main thread: what it waited for could never be had."""
    words = [sys.executable, "-c", _SIGNALLED_WITH_THE_LOCK_HELD]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=_ENDS_WITHIN_S, check=False)
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["stopped"]), ended.stderr
