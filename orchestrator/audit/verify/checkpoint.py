"""Checkpoints of the log: C2SP tlog-checkpoint, a signed note that says how long the log was and what its root was.

The text: the log's origin, the number of leaves, the root in base64, then extension lines, each a word and a value::

    orchestrator.example.com
    4711
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    position 4805
    sealed_at 2026-11-23T12:00:00.123456Z
    key orchestrator.example.com+5b1c0c8e+AYf...

``position`` is that of the last event in the tree, ``sealed_at`` when it was sealed. ``key`` lines stand there only
while more than one key signs: whoever holds one of them learns the others from a note that it can verify, which is how
a key is replaced. It follows that who steals a key can announce another; only the holder of the key file may have it.
A checkpoint says nothing about events after its size, and a log that signs two histories is found only by comparing
checkpoints that different people hold.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.audit.verify.merkle import HASH_SIZE
from orchestrator.audit.verify.signed_note import (
    NoteFault,
    NoteRefused,
    PublicKey,
    SigningKey,
    open_note,
    parse_public_key,
    sign_note,
)

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a log says of itself: its first ``size`` events have this ``root``.

    ``position`` is that of the last of them, ``sealed_at`` when; both None where another program left them out.
    ``keys`` are the keys that sign, if more than one does.
    """

    origin: str
    size: int
    root: bytes
    position: int | None = None
    sealed_at: datetime | None = None
    keys: tuple[PublicKey, ...] = ()

    def text(self) -> str:
        """Return the text to be signed."""
        lines = [self.origin, str(self.size), b64encode(self.root).decode()]
        if self.position is not None:
            lines.append(f"position {self.position}")
        if self.sealed_at is not None:
            lines.append(f"sealed_at {_instant(self.sealed_at)}")
        lines += [f"key {key.line()}" for key in self.keys]
        return "\n".join(lines) + "\n"


def sign_checkpoint(checkpoint: Checkpoint, keys: Sequence[SigningKey]) -> str:
    """Return the note, signed with all ``keys``; if there are several, the text announces them.

    Raises ``NoteRefused`` without a key, and for an origin that is not one line.
    """
    announced = tuple(key.public for key in keys) if len(keys) > 1 else ()
    text = replace(checkpoint, keys=announced).text()
    parse_checkpoint(text)
    return sign_note(text, keys)


def open_checkpoint(note: str | bytes, keys: Iterable[PublicKey]) -> Checkpoint:
    """Return the checkpoint of a note that at least one of ``keys`` and every key it announces has signed.

    Raises ``NoteRefused``: malformed (and in which line), wrong key (with those found and those wanted), bad
    signature, or a missing signature of a key that the text announces.
    """
    known = tuple(keys)
    checkpoint = parse_checkpoint(open_note(note, known).text)
    signers = open_note(note, (*known, *checkpoint.keys)).signers
    unsigned = [key.label for key in checkpoint.keys if key not in signers]
    if unsigned:
        raise NoteRefused(
            NoteFault.MISSING_SIGNATURE,
            f"the text says that {', '.join(unsigned)} signs it, and there is no such signature: it was taken out",
        )
    return checkpoint


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint of a note's text, believed or not. Unknown extension lines are passed over, as C2SP asks.

    Raises ``NoteRefused`` with the first line that is wrong.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "":
        raise _malformed("a checkpoint has an origin, a size and a root, each a line")
    for number, line in enumerate(lines, 1):
        if not line:
            raise _malformed("a checkpoint has no empty line", number)
    found = Checkpoint(origin=lines[0], size=_size(lines[1]), root=_root(lines[2]))
    for number, line in enumerate(lines[3:], 4):
        found = _extended(found, line, number)
    return found


def _extended(found: Checkpoint, line: str, number: int) -> Checkpoint:
    word, _, value = line.partition(" ")
    if word == "key":
        return replace(found, keys=(*found.keys, parse_public_key(value, number)))
    if word == "position":
        _require_first(found.position, word, number)
        return replace(found, position=_number(value, number))
    if word == "sealed_at":
        _require_first(found.sealed_at, word, number)
        return replace(found, sealed_at=_parsed_instant(value, number))
    return found


def _require_first(before: object, word: str, number: int) -> None:
    if before is not None:
        raise _malformed(f"{word} stands there twice", number)


def _size(text: str) -> int:
    size = _number(text, 2)
    if not size:
        raise _malformed("a checkpoint of no events proves nothing, whatever its root is; name a later one", 2)
    return size


def _number(text: str, number: int) -> int:
    if not _NUMBER.fullmatch(text):
        raise _malformed(f"{text[:40]!r} is not a number in decimal, without leading zeros", number)
    return int(text)


def _root(text: str) -> bytes:
    try:
        root = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        root = b""
    if len(root) != HASH_SIZE or b64encode(root).decode() != text:
        raise _malformed("not the base64 of a root of 32 bytes", 3)
    return root


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _parsed_instant(text: str, number: int) -> datetime:
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass  # a month 13, a second 61: refused below like any other spelling
    raise _malformed(f"{text[:40]!r} is not an instant like 2026-11-23T12:00:00.123456Z", number)


def _malformed(message: str, line: int | None = None) -> NoteRefused:
    return NoteRefused(NoteFault.MALFORMED, message, line)
