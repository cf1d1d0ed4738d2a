"""Keys in files: each a file that its owner alone can read, with one line, the key (CONTRACT section 8)."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from orchestrator.domain.key_words import RANDOM_BITS, is_key, spell_key
from orchestrator.errors import InvalidInput
from orchestrator.replace_file import replace_file

_MOST_BYTES = 1_000


def new_key() -> str:
    """Return a key that nobody has."""
    return spell_key(secrets.randbits(RANDOM_BITS))


def make_owner_key(path: Path) -> str:
    """Write a new key to a file that is not there yet, mode 0600, and return it. Raises ``InvalidInput``."""
    if path.exists():
        raise InvalidInput(f"{path} is there already; delete it first if its key is to be valid no longer")
    key = new_key()
    try:
        replace_file(path, f"{key}\n".encode(), mode=0o600)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror or os.strerror(error.errno or 0)}") from None
    return key


def read_owner_key(path: Path) -> str:
    """Return the owner's key of a file. Raises ``InvalidInput``, also where others can read it."""
    return read_key_file(path, "the owner's key", f"make one with `orchestrator keys owner {path}`")


def read_key_file(path: Path, what: str, remedy: str) -> str:
    """Return the key of a file. Raises ``InvalidInput``, also where others can read it; no message holds the key.

    ``what`` it is, and the ``remedy`` where there is none, are for the message.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path} with {what}; {remedy}") from None
    except OSError as error:
        raise InvalidInput(f"{what} {path} cannot be read: {error.strerror}") from None
    # A secret that an orchestrator mounts is root's, and readable by a group of the process.
    others = 0o077 if found.st_uid == os.geteuid() else 0o027
    if stat.S_ISREG(found.st_mode) and found.st_mode & others:
        raise InvalidInput(f"{what} {path} can be read or changed by others; chmod 600 it, or make a new one")
    if not is_key(text):
        raise InvalidInput(f"{path} does not hold {what}: it must be one line that starts with ro_; copy it again")
    return text
