"""Signed notes and their keys: C2SP signed-note, with Ed25519 only, spelled as Go's sumdb/note spells them.

A note is a text that ends in a line feed, an empty line, and one line ``— NAME BASE64`` per signature, where the
base64 holds the first four bytes of the key's hash and the signature over the text. A key is a line:
``PRIVATE+KEY+NAME+HASH+BASE64(0x01 seed)`` or, public, ``NAME+HASH+BASE64(0x01 key)``.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MOST_BYTES = 1_000_000
"""A longer note is refused unread, as sumdb/note does."""

MOST_SIGNATURES = 100
"""More signatures are refused unread, as sumdb/note does."""

_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_DASH = "\N{EM DASH} "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteFault(StrEnum):
    """In which way a note or a key is no good."""

    MALFORMED = "malformed"
    WRONG_KEY = "wrong_key"
    BAD_SIGNATURE = "bad_signature"
    MISSING_SIGNATURE = "missing_signature"


class NoteRefused(ValueError):
    """A note or key that must not be believed: which fault, and in which line (1..) of the text if it is in one."""

    def __init__(self, fault: NoteFault, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.fault = fault
        self.line = line


@dataclass(frozen=True)
class PublicKey:
    """A key to verify with. Two keys are the same key if name and bytes are equal."""

    name: str
    raw: bytes

    @property
    def key_hash(self) -> bytes:
        """The first four bytes of SHA-256 over name, line feed, algorithm and key: what a signature names."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:4]

    @property
    def label(self) -> str:
        """``NAME+HASH``: enough for a person to tell it from others."""
        return f"{self.name}+{self.key_hash.hex()}"

    def line(self) -> str:
        """Return the key as sumdb/note spells it, without a line feed."""
        return f"{self.label}+{_base64(_ED25519 + self.raw)}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Say whether the signature was made with this key over this message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key: a name and a secret seed of 32 bytes."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The key that verifies what this one signs."""
        return PublicKey(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def line(self) -> str:
        """Return the private key as sumdb/note spells it, without a line feed."""
        return f"{_PRIVATE}{self.public.label}+{_base64(_ED25519 + self.seed)}"

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature over ``message``."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


@dataclass(frozen=True)
class Opened:
    """A note whose text may be believed, with the known keys that have signed it, in the order of their lines."""

    text: str
    signers: tuple[PublicKey, ...]


@dataclass(frozen=True)
class _Signature:
    line: int
    name: str
    key_hash: bytes
    signature: bytes

    @property
    def label(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}"


def make_key(name: str, seed: bytes) -> SigningKey:
    """Return the signing key of a secret seed of 32 random bytes. Raises ``NoteRefused`` if name or seed cannot be."""
    if not _is_name(name):
        raise NoteRefused(
            NoteFault.MALFORMED,
            f"{name!r} cannot name a key; use a text without spaces and '+', like audit.example.com",
        )
    if len(seed) != 32:
        raise NoteRefused(NoteFault.MALFORMED, f"a key's seed has 32 bytes, not {len(seed)}")
    return SigningKey(name, seed)


def parse_signing_keys(text: str) -> tuple[SigningKey, ...]:
    """Return the private keys of a key file, one a line; empty lines and lines that begin with ``#`` are left out.

    Raises ``NoteRefused`` with the line that is no key, and for a file without any. No message holds a secret.
    """
    keys = tuple(_signing_key(line, number) for number, line in _key_lines(text))
    if not keys:
        raise NoteRefused(NoteFault.MALFORMED, "the file holds no private key; it needs a line PRIVATE+KEY+...")
    return keys


def parse_public_keys(text: str) -> tuple[PublicKey, ...]:
    """Return the public keys of a file, one a line; empty lines and lines that begin with ``#`` are left out.

    Raises ``NoteRefused`` with the line that is no key, and for a file without any.
    """
    keys = tuple(parse_public_key(line, number) for number, line in _key_lines(text))
    if not keys:
        raise NoteRefused(NoteFault.MALFORMED, "the file holds no public key; it needs a line NAME+HASH+KEY")
    return keys


def parse_public_key(line: str, number: int | None = None) -> PublicKey:
    """Return the key of one line ``NAME+HASH+BASE64``. Raises ``NoteRefused``; ``number`` is the line it names."""
    if line.startswith(_PRIVATE):
        raise NoteRefused(
            NoteFault.MALFORMED, "this is a private key; give the public one, and keep this secret", number
        )
    name, key_hash, raw = _key_parts(line, number)
    key = PublicKey(name, raw)
    _require_hash(key, key_hash, number)
    return key


def sign_note(text: str, keys: Sequence[SigningKey]) -> str:
    """Return the note of a text, signed with every key, in their order.

    Raises ``NoteRefused`` for a text that no note can hold: one that does not end in a line feed, or has other
    control characters; and without a key.
    """
    _require_text(text)
    if not keys:
        raise NoteRefused(NoteFault.MALFORMED, "a note needs a key to be signed with")
    message = text.encode()
    lines = [f"{_DASH}{key.name} {_base64(key.public.key_hash + key.sign(message))}\n" for key in keys]
    return f"{text}\n{''.join(lines)}"


def open_note(note: str | bytes, keys: Iterable[PublicKey]) -> Opened:
    """Return the note's text if at least one of ``keys`` has signed it.

    Signatures by other keys are passed over, as C2SP signed-note asks. Raises ``NoteRefused``: malformed,
    signed by none of the keys (both sides are named), or with a bad signature by one of them.
    """
    text, signatures = _split_note(note)
    known = {(key.name, key.key_hash): key for key in keys}
    message, signers = text.encode(), dict[PublicKey, None]()
    for found in signatures:
        key = known.get((found.name, found.key_hash))
        if key is None:
            continue
        if not key.verifies(found.signature, message):
            raise NoteRefused(
                NoteFault.BAD_SIGNATURE,
                f"the signature of {found.label} is not one over this text: text or signature were altered",
                found.line,
            )
        signers[key] = None
    if not signers:
        found_labels, wanted = _listed(item.label for item in signatures), _listed(key.label for key in known.values())
        raise NoteRefused(NoteFault.WRONG_KEY, f"wrong key: signed by {found_labels}, to be verified with {wanted}")
    return Opened(text, tuple(signers))


def _split_note(note: str | bytes) -> tuple[str, list[_Signature]]:
    content = _decoded(note)
    text, separator, rest = content.rpartition("\n\n")
    if not separator:
        raise NoteRefused(NoteFault.MALFORMED, "not a signed note: no empty line stands between text and signatures")
    text += "\n"
    _require_text(text)
    first = text.count("\n") + 2
    lines = rest.split("\n")
    if lines.pop() != "" or not lines:
        raise NoteRefused(NoteFault.MALFORMED, "the note does not end in a signature line and a line feed")
    if len(lines) > MOST_SIGNATURES:
        raise NoteRefused(NoteFault.MALFORMED, f"the note has more than {MOST_SIGNATURES} signatures")
    return text, [_parsed_signature(line, number) for number, line in enumerate(lines, first)]


def _decoded(note: str | bytes) -> str:
    try:
        raw = note.encode() if isinstance(note, str) else note
        if len(raw) > MOST_BYTES:
            raise NoteRefused(NoteFault.MALFORMED, f"the note is longer than {MOST_BYTES} bytes")
        return raw.decode()
    except UnicodeError:
        raise NoteRefused(NoteFault.MALFORMED, "the note is not UTF-8") from None


def _parsed_signature(line: str, number: int) -> _Signature:
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not separator or not _is_name(name):
        raise NoteRefused(NoteFault.MALFORMED, "not a signature line: it reads '— NAME BASE64'", number)
    decoded = _from_base64(encoded)
    if decoded is None or len(decoded) < 5:
        raise NoteRefused(NoteFault.MALFORMED, f"the signature of {name} is not the base64 of one", number)
    return _Signature(number, name, decoded[:4], decoded[4:])


def _signing_key(line: str, number: int) -> SigningKey:
    if not line.startswith(_PRIVATE):
        raise NoteRefused(NoteFault.MALFORMED, "not a private key: it does not begin with PRIVATE+KEY+", number)
    name, key_hash, seed = _key_parts(line.removeprefix(_PRIVATE), number)
    key = SigningKey(name, seed)
    _require_hash(key.public, key_hash, number)
    return key


def _key_lines(text: str) -> Iterable[tuple[int, str]]:
    lines = enumerate((line.strip() for line in text.split("\n")), 1)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _key_parts(line: str, number: int | None) -> tuple[str, str, bytes]:
    parts = line.split("+", 2)
    if len(parts) != 3 or not _is_name(parts[0]):
        raise NoteRefused(NoteFault.MALFORMED, "not a key: it reads NAME+HASH+BASE64", number)
    decoded = _from_base64(parts[2])
    if decoded is None:
        raise NoteRefused(NoteFault.MALFORMED, f"the key of {parts[0]} is not base64", number)
    if decoded[:1] != _ED25519 or len(decoded) != 33:
        raise NoteRefused(NoteFault.MALFORMED, f"the key of {parts[0]} is not an Ed25519 key", number)
    return parts[0], parts[1], decoded[1:]


def _require_hash(key: PublicKey, found: str, number: int | None) -> None:
    if found != key.key_hash.hex():
        raise NoteRefused(
            NoteFault.MALFORMED, f"the hash of the key of {key.name} is {key.key_hash.hex()}, not {found!r}", number
        )


def _require_text(text: str) -> None:
    if not text.endswith("\n"):
        raise NoteRefused(NoteFault.MALFORMED, "the text of a note ends in a line feed")
    bad = _CONTROL.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise NoteRefused(NoteFault.MALFORMED, f"the text of a note holds no control character {bad[0]!r}", line)
    _decoded(text)


def _is_name(name: str) -> bool:
    """Say whether a text can name a key: sumdb/note's rule, and no control characters, which a note cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and "+" not in name and not _CONTROL.search(name) and not any(map(str.isspace, name))


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _from_base64(text: str) -> bytes | None:
    """Return the bytes if the text is their one canonical spelling, so that no byte of it can be changed unseen."""
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _base64(raw) == text else None


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(labels) or "no key"
