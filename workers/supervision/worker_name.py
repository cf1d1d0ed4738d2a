"""The name of a worker, which no other start of one ever has."""

from __future__ import annotations

import os
import secrets
import socket

_TOKEN_BYTES = 8


def new_token() -> str:
    """Return what makes the name of one start of a worker its own."""
    return secrets.token_hex(_TOKEN_BYTES)


def worker_name(token: str, pid: int | None = None) -> str:
    """Return ``HOST:PID:TOKEN``, by default of this process."""
    return f"{socket.gethostname()}:{pid or os.getpid()}:{token}"
