"""Durations as people write them, ``15s`` or ``1m30s``, and as the log keeps them, integer milliseconds."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from orchestrator.errors import InvalidInput

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_MAX_TEXT = 40

LONGEST_MS = 30 * _UNITS_MS["d"]
"""No duration in this product means anything beyond 30 days; a longer one is a typing error."""


def parse_duration(value: str | float, *, field: str = "duration", longest_ms: int = LONGEST_MS) -> int:
    """Return milliseconds of a duration as Go and Prometheus write it, or of a number of seconds.

    Raises ``InvalidInput`` for anything else, for a negative one, for one finer than
    a millisecond and for one above ``longest_ms``. Source: CONTRACT section 2.
    """
    if isinstance(value, bool):
        raise _refused(value, field)
    ms = _of_text(value.strip(), field) if isinstance(value, str) else _of_seconds(str(value), field)
    if ms != int(ms):
        raise InvalidInput(f"{field}: {value!r} is finer than a millisecond", field=field)
    if not 0 <= ms <= longest_ms:
        raise InvalidInput(f"{field}: {value!r} is not between 0s and {format_duration(longest_ms)}", field=field)
    return int(ms)


def format_duration(ms: int) -> str:
    """Return the shortest spelling of ``ms`` milliseconds: ``0s``, ``500ms``, ``1m30s``."""
    text, rest = "", ms
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNITS_MS[unit])
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def _of_text(text: str, field: str) -> Decimal:
    if re.fullmatch(_NUMBER, text) and len(text) <= _MAX_TEXT:
        return _of_seconds(text, field)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(text) > _MAX_TEXT:
        raise _refused(text, field)
    return sum((Decimal(number) * _UNITS_MS[unit] for number, unit in parts), Decimal(0))


def _of_seconds(text: str, field: str) -> Decimal:
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise _refused(text, field) from None
    if not seconds.is_finite():
        raise _refused(text, field)
    return seconds * 1000


def _refused(value: object, field: str) -> InvalidInput:
    return InvalidInput(f"{field}: {value!r} is not a duration; write it as 15s, 1m30s or 500ms", field=field)
