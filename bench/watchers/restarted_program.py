"""The program that every watcher restarts: a server on one port that notes its starts, its readiness and what it saw.

Run as a script, with the standard library only: ``restarted_program.py KIND LOG PORT STATE``. Each note is a line of
JSON in LOG; ``at_ns`` is the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PLAIN, SLOW_END, DEAF, GRANDCHILD, FAILING = "plain", "slow-end", "deaf", "grandchild", "failing"
BACKGROUND = "in-the-background"
"""The kind that a grandchild is started with: it keeps the port, which it inherits, and does nothing."""

START, READY, PORT_TAKEN = "start", "ready", "port_taken"
FAILS = "this text makes the program fail"
_ENDS_AFTER_S = 1.0
_FAILS_AFTER_S = 0.3
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Whatever a watcher asks a program to end with, be it by default."""


def main(kind: str, log: Path, port: int, state: Path) -> int:
    """Serve until told to end."""
    _note(log, START)
    seen = state.read_text()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the past do not keep the port
    try:
        listening.bind(("127.0.0.1", port))
    except OSError:
        _note(log, PORT_TAKEN)
        return 1
    listening.listen()
    if kind == FAILING and seen == FAILS:
        time.sleep(_FAILS_AFTER_S)
        return 1
    if kind == GRANDCHILD:
        words = [sys.executable, "-I", "-S", __file__, BACKGROUND]
        subprocess.Popen(words, pass_fds=[listening.fileno()])
    for number in _ENDINGS:
        if kind == DEAF:
            signal.signal(number, signal.SIG_IGN)
        elif kind == SLOW_END:
            signal.signal(number, _end_slowly)
    _note(log, READY, seen)
    while True:
        signal.pause()


def _end_slowly(number: int, frame: object) -> None:
    time.sleep(_ENDS_AFTER_S)
    os._exit(0)


def _note(log: Path, what: str, seen: str = "") -> None:
    line = json.dumps({"what": what, "at_ns": time.monotonic_ns(), "pid": os.getpid(), "seen": seen})
    with log.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    if sys.argv[1] == BACKGROUND:
        signal.pause()
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
