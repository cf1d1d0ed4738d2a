"""Paths of writes as data: how odd ones are stored, which are refused, which rules match them. Never opened.

Source: CONTRACT section 2 (``rules``) and section 5 (``path_encoding``).
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pathspec import GitIgnoreSpec

from orchestrator.errors import InvalidInput

MAX_PATH_BYTES = 4096
"""Longest stored path in UTF-8 bytes: Linux' own limit (PATH_MAX)."""

MAX_PATTERNS = 100
MAX_PATTERN_CHARACTERS = 1000

_LINEAR: Final = "re2"
"""Matching happens under the append lock. Python's own engine backtracks: ``**/a/**/b/**/c`` kept it busy for 6 s
with a path of 4,000 characters (measured; RE2: under 5 ms), so that whoever names paths could have stopped all writes.
"""

_PRIVATE_FROM = 0xF0000
_SURROGATE = re.compile("[\ud800-\udfff]")
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


def matches(patterns: tuple[str, ...], path: str) -> bool:
    """Say whether ``path`` is matched by a list of gitignore patterns, of which the last that speaks decides.

    A leading ``/`` of the path is not looked at. Raises ``InvalidInput`` for a pattern that ``check_patterns`` refuses.
    """
    return _compiled(patterns).match_file(_encodable(path.lstrip("/")), separators=())


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Raise ``InvalidInput`` that names the first pattern which is broken, too long or can never match."""
    if not patterns:
        raise InvalidInput("the list of patterns is empty; give at least one, such as **", field="match")
    if len(patterns) > MAX_PATTERNS:
        raise InvalidInput(f"{len(patterns)} patterns in one list; at most {MAX_PATTERNS} are allowed", field="match")
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            start = pattern[:40]
            raise InvalidInput(
                f"pattern {start!r}... is longer than {MAX_PATTERN_CHARACTERS} characters", field="match"
            )
        spec = _spec_of((pattern,))
        if all(compiled.include is None for compiled in spec.patterns):
            raise InvalidInput(
                f"pattern {pattern!r} can never match (blank, a comment or not closed); correct or remove it",
                field="match",
            )


@lru_cache(maxsize=1024)
def _compiled(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    check_patterns(patterns)
    return _spec_of(patterns)


def _spec_of(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    with warnings.catch_warnings():
        # `[[]` is a good set of one character; re warns of what a later Python might read into its regex.
        warnings.simplefilter("ignore", FutureWarning)
        for pattern in patterns:
            try:
                GitIgnoreSpec.from_lines([_encodable(pattern)], backend=_LINEAR)
            except (ValueError, re.error) as error:
                raise InvalidInput(f"pattern {pattern!r} is not gitignore syntax: {error}", field="match") from None
        return GitIgnoreSpec.from_lines(map(_encodable, patterns), backend=_LINEAR)


def _encodable(text: str) -> str:
    """Return ``text`` with each surrogate as one private character of its own: RE2 takes UTF-8 only."""
    return _SURROGATE.sub(lambda found: chr(_PRIVATE_FROM + ord(found[0])), text)


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
