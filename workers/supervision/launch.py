"""What to start: one program with its arguments, folder, environment and grace."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import ExecutionError, PermanentError, TransientError

_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EINTR})


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A program to start. ``env`` is the child's whole environment; ``grace_s`` lies between ``stop_signal`` and KILL.

    ``inherits_stdin``: it reads what we would; else nothing. ``once``: it is to end, and no end starts it again.
    ``done_within_s``: one that ends with exit code 0 so soon after a restart has done its work, and is not either.
    ``hidden`` are secrets of ``env``, which must not be seen in what is kept of the program's output.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    grace_s: float
    cwd: str | None = None
    hidden: Sequence[str] = field(default=(), repr=False)
    stop_signal: int = signal.SIGTERM
    inherits_stdin: bool = False
    once: bool = False
    done_within_s: float = 0.0

    @property
    def program(self) -> tuple[str, str | None]:
        """Return what names the program's file: its name, and the folder that it is looked up from."""
        return self.argv[0], self.cwd


def start_failure(program: str, error: OSError) -> ExecutionError:
    """Say why a program could not be started, and whether another try may help.

    Short of memory, processes or descriptors: ``TransientError``. Not found, not executable,
    no such folder and the like: ``PermanentError``.
    """
    place = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    sentence = f"cannot start {program!r}: {error.strerror}{place}"
    if error.errno in _PASSING:
        return TransientError(f"{sentence}; the machine is short of something, it is tried again")
    return PermanentError(f"{sentence}; correct argv, cwd or env of the workspace's target")
