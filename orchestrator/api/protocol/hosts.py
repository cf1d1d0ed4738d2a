"""Under which names a browser may speak to the API.

A web page can point its own name at an address of this machine (DNS rebinding) and then send what it likes, with a
registration that runs a program among it. Its requests still carry its name in ``Host``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

_REMEMBERED = 100


class Hosts:
    """The values of ``Host`` that are accepted: those of a list, or the names of this machine's loopback."""

    def __init__(self, allowed: Sequence[str] | None) -> None:
        """``allowed``: names and addresses, with a port or for all ports, ``*.`` for any name below; None: loopback."""
        self._allowed = None if allowed is None else [_split(each) for each in allowed]
        self._good: set[bytes] = set()

    def accepts(self, host: bytes) -> bool:
        """Return whether a request with this ``Host`` is served."""
        if host in self._good:
            return True
        try:
            asked = _split(host.decode("ascii").lower())
            is_good = (
                bool(asked.hostname)
                and not asked.path
                and "@" not in asked.netloc
                and self._is_good(asked.hostname or "", asked.port)
            )
        except ValueError:
            return False
        if is_good and len(self._good) < _REMEMBERED:
            self._good.add(host)
        return is_good

    def _is_good(self, name: str, port: int | None) -> bool:
        if self._allowed is None:
            return _is_loopback(name)
        return any(_fits(each.hostname or "", name) and each.port in (None, port) for each in self._allowed)


def _split(host: str) -> SplitResult:
    bare = host.strip("[]")
    return urlsplit(f"//[{bare}]" if bare.count(":") > 1 and "]:" not in bare else f"//{host}")


def _fits(allowed: str, name: str) -> bool:
    return name.endswith(allowed[1:]) and len(name) >= len(allowed) if allowed.startswith("*.") else name == allowed


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
