"""Which key the commands send: ORCHESTRATOR_KEY, or that of the file ORCHESTRATOR_KEY_FILE; else the owner's.

The owner's is that of ORCHESTRATOR_OWNER_KEY, else of the ``up`` that they speak to.
``up`` notes beside its key where it listens, and in its user's own folder, by the port, where its key is: so the
commands of the same user find it whatever its data folder. A key goes nowhere else, and not there either when somebody
else's program has taken the port since: it is worth its owner's account. As long as nobody listens somebody else may
at any moment, so that is looked at once a connection is there.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from orchestrator.domain.key_words import is_key
from orchestrator.errors import InvalidInput
from orchestrator.owner_key import read_key_file, read_owner_key
from orchestrator.private_files import private_folder
from orchestrator.replace_file import replace_file
from orchestrator.settings import default_data_folder, load_settings

_log = structlog.get_logger("orchestrator")

OWNER_KEY = "owner.key"
_KEY, _KEY_FILE = "ORCHESTRATOR_KEY", "ORCHESTRATOR_KEY_FILE"
_WHERE = "url"
_BY_PORT = "ports"
_LISTENS = "0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


@dataclass(frozen=True)
class FoundKey:
    """The key of an ``up``, whose ``owner`` (a user's number) listens on a port."""

    key: str = field(repr=False)
    owner: int
    port: int

    def is_for_who_listens(self) -> bool:
        """Return whether nobody but its owner listens there now."""
        return _listeners(self.port) == {self.owner}


def note_where(data: Path, url: str) -> None:
    """Note where the ``up`` of a data folder listens."""
    replace_file(data / _WHERE, f"{url}\n".encode(), mode=0o600)
    by_port = default_data_folder() / _BY_PORT
    try:
        for folder in (by_port.parent, by_port):  # the data folder of an `up` without --data, maybe its first file
            private_folder(folder, named_by="the folder of this user's state")
        replace_file(by_port / str(urlsplit(url).port), os.fsencode(os.path.abspath(data)), mode=0o600)
    except (InvalidInput, OSError) as error:  # a home that cannot be written: the commands are told by --data then
        _log.info("key.not_found_by_port", why=str(error), remedy=f"ORCHESTRATOR_DATA={data} for the commands")


def named_key() -> str | None:
    """Return the key that the settings name, None for none. Raises ``InvalidInput`` for one that cannot be used."""
    own = _own_key(os.environ)
    if own is not None:
        return own
    file = load_settings().owner_key
    return None if file is None else read_owner_key(file)


def found_key(host: str, port: int | None) -> FoundKey | None:
    """Return the key of the ``up`` that noted to listen there, and does; None for none.

    It may have ended, and another API of the same user listen there by now, which knows nothing of that key. Raises
    ``InvalidInput`` for one that cannot be used.
    """
    if port is None or not _is_loopback(host):
        return None
    for data in (load_settings().data, *_noted_by(port)):
        found = _key_of(data, port)
        if found is not None:
            return found
    return None


def _own_key(environment: Mapping[str, str]) -> str | None:
    """Return the caller's own key, which is sent wherever they call."""
    key, file = environment.get(_KEY), environment.get(_KEY_FILE)
    if key is not None and file is not None:
        raise InvalidInput(f"{_KEY} and {_KEY_FILE} are both set: unset one of them")
    if file is not None:
        return read_key_file(Path(file).expanduser(), "the key of this caller", f"correct or unset {_KEY_FILE}")
    if key is not None and not is_key(key.strip()):
        raise InvalidInput(
            f"{_KEY} holds no key: it must be ro_ and 33 letters and digits, as `orchestrator keys create` printed it; "
            "copy it again, or unset it"
        )
    return None if key is None else key.strip()


def _noted_by(port: int) -> Iterator[Path]:
    try:
        yield Path(os.fsdecode((default_data_folder() / _BY_PORT / str(port)).read_bytes()))
    except OSError:  # no `up` of this user has listened there
        return


def _key_of(data: Path, port: int) -> FoundKey | None:
    """Return the key of the ``up`` of a data folder if that is who listens on a port."""
    file = data / OWNER_KEY
    try:
        noted = urlsplit((data / _WHERE).read_text(encoding="utf-8").strip()).port
        owner = file.stat().st_uid
    except (OSError, ValueError):  # no `up` has run here, or not ours to read
        return None
    return FoundKey(read_owner_key(file), owner, port) if noted == port and _listeners(port) == {owner} else None


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
