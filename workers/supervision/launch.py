"""What to start: one program with its arguments, folder, environment and grace."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import ExecutionError, PermanentError, TransientError

_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EINTR})


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A program to start. ``env`` is the child's whole environment; ``grace_s`` lies between TERM and KILL.

    ``hidden`` are secrets of ``env``, which must not be seen in what is kept of the program's output.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    grace_s: float
    cwd: str | None = None
    hidden: Sequence[str] = field(default=(), repr=False)


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
