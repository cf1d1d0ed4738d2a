"""How a key is spelled: ``ro_``, 27 letters of 160 random bits, and 6 that check them (CONTRACT section 8).

So a typing error is told from a key that is not valid, and a scanner for secrets knows a real one.
"""

from __future__ import annotations

import hashlib
import re
import zlib

RANDOM_BITS = 160

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LETTERS, _CHECK_LETTERS = 27, 6
_KEY = re.compile(rf"ro_[0-9A-Za-z]{{{_RANDOM_LETTERS + _CHECK_LETTERS}}}")


def spell_key(random_bits: int) -> str:
    """Return the key of a number of ``RANDOM_BITS`` random bits."""
    body = f"ro_{_in_letters(random_bits, _RANDOM_LETTERS)}"
    return body + _check_of(body)


def is_key(text: str) -> bool:
    """Return whether a text is spelled as a key is: whether it is valid, only its API knows."""
    return _KEY.fullmatch(text) is not None and text.endswith(_check_of(text[:-_CHECK_LETTERS]))


def digest_of(key: str) -> str:
    """Return what is kept of a key: SHA-256, in hexadecimal digits. With 160 random bits nobody guesses back."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _check_of(body: str) -> str:
    return _in_letters(zlib.crc32(body.encode("ascii")), _CHECK_LETTERS)


def _in_letters(number: int, letters: int) -> str:
    spelled = ""
    for _ in range(letters):
        number, digit = divmod(number, len(_DIGITS))
        spelled = _DIGITS[digit] + spelled
    return spelled
