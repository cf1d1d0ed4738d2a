"""From the bytes of an export file to the envelopes of its events, strictly (CONTRACT section 3)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, BinaryIO

import msgspec

_BLOCK = 1 << 20
_LONGEST_LINE = 16 << 20
NEWEST_SCHEMA = 2
"""Of all events of a workspace that this verifier knows."""
_GZIP = b"\x1f\x8b"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Position = Annotated[int, msgspec.Meta(ge=1)]


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One event as a line of the export has it; ``data`` is not decoded yet."""

    position: Position
    id: str
    workspace: str | None
    version: int | None
    type: str
    schema: Annotated[int, msgspec.Meta(ge=1)]
    recorded_at: str
    occurred_at: str | None
    actor: str
    source: str | None
    source_id: str | None
    correlation_id: str | None
    causation_id: str | None
    data: msgspec.Raw


class Unreadable(ValueError):
    """What was read is no log, or not whole: where, and why. Nothing after it is read."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


Line = tuple[bytes, Envelope]
decode_envelope = msgspec.json.Decoder(Envelope).decode
encode_line = msgspec.json.Encoder().encode
"""The canonical bytes of an envelope: its line, without the line feed."""


def read_lines(file: BinaryIO, progress: Callable[[int], object] = lambda read: None) -> Iterator[Line]:
    """Yield each line with its envelope. ``progress`` takes the bytes read so far.

    Raises ``Unreadable`` at the first line that is no event: broken or truncated JSON, unknown or missing
    keys, wrong types; and for gzip data that is damaged.
    """
    for number, line in enumerate(_split(file, progress), 1):
        try:
            yield line, decode_envelope(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"line {number} is no event: {error}", number) from None


def parse_line(line: bytes, what: str) -> Envelope:
    """Return the envelope of one event; ``what`` names it in the error. Raises ``Unreadable``."""
    try:
        return decode_envelope(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{what} is no event: {error}") from None


def _split(file: BinaryIO, progress: Callable[[int], object]) -> Iterator[bytes]:
    """Split blocks, not the file: measured 0.1 us a line less, and a file without line feeds cannot fill memory."""
    rest, number, read = b"", 0, 0
    for block in _blocks(file):
        read += len(block)
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from lines
        number += len(lines)
        if len(rest) > _LONGEST_LINE:
            raise Unreadable(f"line {number + 1} is longer than {_LONGEST_LINE >> 20} MiB: no export", number + 1)
        progress(read)
    if rest:
        _require_whole(rest, number + 1)
        yield rest


def _require_whole(line: bytes, number: int) -> None:
    """Tell a last line that was cut from one that only lacks its line feed."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable(f"the file is truncated: its last line, {number}, ends in the middle", number) from None


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    first = file.read(_BLOCK)
    blocks = chain([first], iter(lambda: file.read(_BLOCK), b""))
    return _unpacked(blocks) if first.startswith(_GZIP) else blocks


def _unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip in bounded pieces: a small file may hold a very large one."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for block in blocks:
            rest = block
            while rest and not unpacker.eof:
                yield unpacker.decompress(rest, _BLOCK)
                rest = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as error:
        raise Unreadable(f"the gzip file is damaged: {error}") from None
    if not unpacker.eof:
        raise Unreadable("the gzip file is truncated")


def microseconds(at: datetime) -> int:
    """Return an instant as whole microseconds since 1970."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def parse_instant(text: str) -> int:
    """Return microseconds since 1970 of an instant as the log spells it. Raises ``Unreadable``."""
    if _INSTANT.fullmatch(text) is None:
        raise Unreadable(f"{text!r} is no instant with six digits and Z")
    try:
        return microseconds(datetime.fromisoformat(text))
    except ValueError:
        raise Unreadable(f"{text!r} is no instant of the calendar") from None


def spell_instant(at: int) -> str:
    """Return how the log spells an instant."""
    # Not fromtimestamp: a float has no microseconds left in far years.
    seconds, micros = divmod(at, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{micros:06d}Z"
