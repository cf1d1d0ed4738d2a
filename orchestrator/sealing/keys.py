"""The key file: private keys, one a line, readable by its owner only; all of them sign (C2SP signed-note).

A key is replaced in three steps: ``rotate`` adds one, auditors get the new public keys, and when they have them the
old line is deleted. The file is read at every seal, so none of it needs a restart.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from orchestrator.audit.verify.signed_note import NoteRefused, SigningKey, make_key, parse_signing_keys
from orchestrator.errors import InvalidInput, SealKeyUnavailable
from orchestrator.replace_file import replace_file

_MOST_BYTES = 100_000


def read_keys(path: Path) -> tuple[SigningKey, ...]:
    """Return the keys of a key file. Raises ``SealKeyUnavailable``; no message holds a secret."""
    try:
        with path.open("rb") as file:
            _require_closed(path, os.fstat(file.fileno()))
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise SealKeyUnavailable(f"the seal key {path} is no key file: it is longer than {_MOST_BYTES} bytes")
        return parse_signing_keys(content.decode())
    except FileNotFoundError:
        raise SealKeyUnavailable(
            f"there is no seal key {path}; make one with `orchestrator audit keys new {path}`, or put it back"
        ) from None
    except OSError as error:
        raise SealKeyUnavailable(f"the seal key {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SealKeyUnavailable(f"the seal key {path} is no key file: it is not text") from None
    except NoteRefused as error:
        raise SealKeyUnavailable(f"the seal key {path} is no key file: {error}") from None


def _require_closed(path: Path, found: os.stat_result) -> None:
    """Raise ``SealKeyUnavailable`` for a key that others can read; root may give it to a group, as Kubernetes does."""
    allowed = 0o740 if found.st_uid == 0 and os.geteuid() != 0 else 0o700
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o777 & ~allowed:
        raise SealKeyUnavailable(
            f"the seal key {path} can be read by others (mode {found.st_mode & 0o777:o}): close it with `chmod 600"
            f" {path}`, and add a new key with `orchestrator audit keys rotate {path}` if somebody may have read it"
        )


def make_key_file(path: Path, origin: str) -> SigningKey:
    """Write a new key file and its public half; ``origin`` names the log and the key. Raises ``InvalidInput``."""
    try:
        key = make_key(origin, secrets.token_bytes(32))
    except NoteRefused as error:
        raise InvalidInput(f"--origin: {error}", field="origin") from None
    if path.exists():
        raise InvalidInput(f"{path} is there already; a second key is added by `orchestrator audit keys rotate {path}`")
    _write(path, (key,))
    return key


def rotate(path: Path) -> SigningKey:
    """Add a key of the same name to a key file; from the next seal on all of them sign.

    Raises ``SealKeyUnavailable`` and ``InvalidInput``.
    """
    keys = read_keys(path)
    key = make_key(keys[-1].name, secrets.token_bytes(32))
    _write(path, (*keys, key))
    return key


def public_lines(keys: tuple[SigningKey, ...]) -> str:
    """Return the public keys, one a line: what ``--pubkey FILE`` reads."""
    return "".join(f"{key.public.line()}\n" for key in keys)


def public_path(path: Path) -> Path:
    """Return where the public half of a key file lies: ``seal.pub`` beside ``seal.key``."""
    return path.with_suffix(".pub")


def _write(path: Path, keys: tuple[SigningKey, ...]) -> None:
    # The public half first: a key that signs must never be one that nobody can verify.
    for file, text, mode in (
        (public_path(path), public_lines(keys), 0o644),
        (path, "".join(f"{key.line()}\n" for key in keys), 0o600),
    ):
        try:
            replace_file(file, text.encode(), mode=mode)
        except OSError as error:
            raise InvalidInput(f"cannot write {file}: {error.strerror or os.strerror(error.errno or 0)}") from None
