"""Under which names a browser may speak to an API that only this machine is to reach.

A web page can point its own name at 127.0.0.1 (DNS rebinding) and then send what it likes, with a registration that
runs a program among it. Its requests still carry its name in ``Host``.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from orchestrator.settings import Settings


def is_checked(settings: Settings) -> bool:
    """Return whether names are checked: unless others may reach the API, or something in front checks callers."""
    return settings.bind_is_loopback and not settings.allow_unauthenticated


@lru_cache(maxsize=16)
def is_loopback(host: str) -> bool:
    """Return whether a ``Host`` header names this machine: ``localhost``, ``127.0.0.1:8321``, ``[::1]``."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
