"""Which key the commands send: that of ORCHESTRATOR_OWNER_KEY, else of the ``up`` that they speak to.

``up`` notes beside its key where it listens. Its key goes nowhere else, and not there either when somebody else's
program has taken the port since: a key is worth its owner's account.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import InvalidInput
from orchestrator.owner_key import read_owner_key
from orchestrator.replace_file import replace_file
from orchestrator.settings import load_settings

OWNER_KEY = "owner.key"
_WHERE = "url"
_LISTENS = "0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def note_where(data: Path, url: str) -> None:
    """Note where the ``up`` of a data folder listens."""
    replace_file(data / _WHERE, f"{url}\n".encode(), mode=0o600)


def key_for(host: str, port: int | None) -> str | None:
    """Return the key to be sent to a server, None for none. Raises ``InvalidInput`` for one that cannot be used."""
    settings = load_settings()
    if settings.owner_key is not None:
        return read_owner_key(settings.owner_key)
    file = settings.data / OWNER_KEY
    if port is None or not _is_loopback(host):
        return None
    try:
        noted = urlsplit((settings.data / _WHERE).read_text(encoding="utf-8").strip()).port
        owner = file.stat().st_uid
    except (OSError, ValueError):  # no `up` has run here, or not ours to read
        return None
    return read_owner_key(file) if noted == port and _listeners(port) <= {owner} else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listeners(port: int) -> set[int]:
    """Return the users whose programs listen on a port of this machine."""
    found = set()
    for table in _TABLES:
        try:
            rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
        except OSError as error:
            raise InvalidInput(
                f"cannot see who listens on port {port} ({error}): name the key's file with "
                "ORCHESTRATOR_OWNER_KEY to send it all the same"
            ) from None
        found |= {int(row[7]) for row in rows if row[3] == _LISTENS and row[1].endswith(f":{port:04X}")}
    return found
