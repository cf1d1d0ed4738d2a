"""Being the first process of a container: what its programs leave behind becomes ours, and must be reaped.

The work is done by a child, so that nobody but who waits for a program reaps it. The first process passes signals on,
reaps all others, and ends as its child does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_THE_KERNEL = 128
"""``si_code`` of what a terminal sends: to its whole foreground group, our child included. Source: sigaction(2)."""
_KILLED_FROM = 128


def reap_if_first() -> None:
    """Where this is process 1 of its namespace: go on in a child, and be what waits for it. No thread may run yet."""
    if os.getpid() == 1:
        go_on_in_child(os._exit)


def go_on_in_child(leave: Callable[[int], None]) -> None:
    """Return in a child of this process; here, call ``leave`` with its exit code once it has ended."""
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        got = signal.sigwaitinfo(watched)
        if got.si_signo == signal.SIGCHLD:
            code = _reap_all(child)
            if code is not None:
                leave(code)
                return
        elif got.si_code != _FROM_THE_KERNEL:
            os.kill(child, got.si_signo)


def _reap_all(child: int) -> int | None:
    """Reap whatever has ended; return the exit code of ``child`` if it is among that."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else _KILLED_FROM - code
