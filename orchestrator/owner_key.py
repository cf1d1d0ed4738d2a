"""The owner's key: a file that its owner alone can read, with one line that starts with ``ro_`` (CONTRACT section 8).

A key is ``ro_``, 27 letters of 160 random bits, and 6 that check them, so that a typing error is told from a key that
is not valid, and a scanner for secrets knows a real one.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import zlib
from pathlib import Path

from orchestrator.errors import InvalidInput
from orchestrator.replace_file import replace_file

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LETTERS, _CHECK_LETTERS = 27, 6
_KEY = re.compile(rf"ro_[0-9A-Za-z]{{{_RANDOM_LETTERS + _CHECK_LETTERS}}}")
_MOST_BYTES = 1_000


def new_key() -> str:
    """Return a key that nobody has."""
    body = f"ro_{_in_letters(secrets.randbits(160), _RANDOM_LETTERS)}"
    return body + _check_of(body)


def is_key(text: str) -> bool:
    """Return whether a text is spelled as a key is: whether it is valid, only its API knows."""
    return _KEY.fullmatch(text) is not None and text.endswith(_check_of(text[:-_CHECK_LETTERS]))


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
    """Return the key of a file. Raises ``InvalidInput``, also where others can read it; no message holds the key."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise InvalidInput(f"there is no owner's key {path}; make one with `orchestrator keys owner {path}`") from None
    except OSError as error:
        raise InvalidInput(f"the owner's key {path} cannot be read: {error.strerror}") from None
    # A secret that an orchestrator mounts is root's, and readable by a group of the process.
    others = 0o077 if found.st_uid == os.geteuid() else 0o027
    if stat.S_ISREG(found.st_mode) and found.st_mode & others:
        raise InvalidInput(f"the owner's key {path} can be read or changed by others; chmod 600 it, or make a new one")
    if not is_key(text):
        raise InvalidInput(f"{path} holds no owner's key: it must be one line that starts with ro_; copy it again")
    return text


def _check_of(body: str) -> str:
    return _in_letters(zlib.crc32(body.encode("ascii")), _CHECK_LETTERS)


def _in_letters(number: int, letters: int) -> str:
    spelled = ""
    for _ in range(letters):
        number, digit = divmod(number, len(_DIGITS))
        spelled = _DIGITS[digit] + spelled
    return spelled
