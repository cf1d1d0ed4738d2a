"""Paths of writes as data: how odd ones are stored, which are refused. Never opened.

Source: CONTRACT section 5 (``path_encoding``).
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from orchestrator.errors import InvalidInput

MAX_PATH_BYTES = 4096
"""Longest stored path in UTF-8 bytes: Linux' own limit (PATH_MAX)."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_WTF8_SURROGATE = re.compile("\udced[\udca0-\udcbf][\udc80-\udcbf]")


def escape_path(raw: str) -> tuple[str, bool]:
    """Return ``raw`` as it is stored, and whether that is percent-encoded.

    A path with NUL or a lone surrogate fits neither JSON nor PostgreSQL's text, so the whole of it is
    percent-encoded, ``%`` too. A surrogate that stands for a byte of a non-UTF-8 name (PEP 383, as ``os.fsdecode``
    makes it) becomes that byte; any other becomes its three WTF-8 bytes. All other paths stay as they are.
    """
    if _UNSTORABLE.search(raw) is None:
        return raw, False
    return quote_from_bytes(_bytes_of(raw), safe="/"), True


def unescape_path(stored: str) -> str:
    """Return the path that ``escape_path`` stored percent-encoded; not for paths that it left as they were."""
    return _text_of(unquote_to_bytes(stored))


def check_path(raw: str) -> None:
    """Raise ``InvalidInput`` for an empty path and for one above ``MAX_PATH_BYTES`` as stored.

    Everything else is legal data: control characters, a leading ``/`` and ``..`` too.
    """
    if not raw:
        raise InvalidInput("path is empty; name the file that was written", field="path")
    # Every character takes a byte at least: what is far too long is refused before it is encoded.
    if len(raw) > MAX_PATH_BYTES or len(escape_path(raw)[0].encode()) > MAX_PATH_BYTES:
        raise InvalidInput(f"path is longer than {MAX_PATH_BYTES} bytes; shorten it", field="path")


def _bytes_of(raw: str) -> bytes:
    data = b"".join(_bytes_of_character(character) for character in raw)
    # Raw bytes that happen to spell UTF-8 or WTF-8 would come back as another string. No file name decodes to such a
    # string, save for one whose bytes spell WTF-8; in full WTF-8 it is as exact.
    return data if _text_of(data) == raw else raw.encode("utf-8", "surrogatepass")


def _bytes_of_character(character: str) -> bytes:
    if "\udc80" <= character <= "\udcff":
        return bytes((ord(character) - 0xDC00,))
    return character.encode("utf-8", "surrogatepass")


def _text_of(data: bytes) -> str:
    return _WTF8_SURROGATE.sub(_joined_surrogate, data.decode("utf-8", "surrogateescape"))


def _joined_surrogate(found: re.Match[str]) -> str:
    return found[0].encode("utf-8", "surrogateescape").decode("utf-8", "surrogatepass")
