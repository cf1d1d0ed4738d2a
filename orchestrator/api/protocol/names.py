"""Which ids, labels and texts the API takes (CONTRACT section 1; lengths bound what one caller can store)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.domain.encoding import InstantOutOfRange, parse_instant
from orchestrator.errors import InvalidInput

_CHARACTER = "[A-Za-z0-9._:-]"
_NAME_OF = (
    rf"(?:[A-Za-z0-9_:]{_CHARACTER}{{0,127}}|[.](?:[A-Za-z0-9_:-]{_CHARACTER}{{0,126}}|[.]{_CHARACTER}{{1,126}}))"
)

NAME_PATTERN = f"^{_NAME_OF}$"
"""Ids of workspaces and fleets: not ``.`` and ``..``, which every client folds in an address, nor what looks like an
option. Spelled without looking ahead, which Pydantic's expressions cannot.
"""

EARLIER_NAME_PATTERN = f"^{_CHARACTER}{{1,128}}$"
"""What an id could be before: what was registered so can still be read, held and removed."""

MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 256
MAX_REASON_CHARACTERS = 1_000

_NAME = re.compile(_NAME_OF)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def is_name(value: str) -> bool:
    """Return whether it can be the id of a workspace or fleet."""
    return _NAME.fullmatch(value) is not None


def check_name(value: str, field: str) -> str:
    """Return the id of a workspace or fleet. Raises ``InvalidInput``."""
    if not is_name(value):
        raise InvalidInput(
            f"{field}: {value[:140]!r} is not an id; use 1 to 128 of the characters A-Z a-z 0-9 . _ : -, "
            "not a - at the beginning, nor . or .. alone",
            field=field,
        )
    return value


def check_text(value: str, field: str, *, most: int, least: int = 1) -> str:
    """Return a text of ``least`` to ``most`` characters that every database can keep. Raises ``InvalidInput``."""
    if not least <= len(value) <= most or (least > 0 and not value.strip()):
        raise InvalidInput(f"{field}: must have {least} to {most} characters and not only blanks", field=field)
    if _UNSTORABLE.search(value) is not None:
        raise InvalidInput(f"{field}: holds a NUL or half of a surrogate pair; remove it", field=field)
    return value


def check_labels(labels: Mapping[str, str], field: str = "labels") -> Mapping[str, str]:
    """Return labels. Raises ``InvalidInput`` for too many, and for a key or value that is too long."""
    if len(labels) > MAX_LABELS:
        raise InvalidInput(f"{field}: {len(labels)} labels; at most {MAX_LABELS} are allowed", field=field)
    for key, value in labels.items():
        check_text(key, field, most=MAX_LABEL_CHARACTERS)
        check_text(value, f"{field}.{key}", most=MAX_LABEL_CHARACTERS, least=0)
    return labels


def check_storable(value: Any, field: str = "") -> None:
    """Raise ``InvalidInput`` if any text inside plain values holds what no database can keep."""
    if isinstance(value, str):
        if _UNSTORABLE.search(value) is not None:
            raise InvalidInput(f"{field or 'body'}: holds a NUL or half of a surrogate pair; remove it", field=field)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_storable(key, field)
            check_storable(item, f"{field}.{key}" if field else key)
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            check_storable(item, f"{field}[{index}]")


def check_instant(value: str | datetime, field: str) -> datetime:
    """Return an instant in UTC, given as RFC 3339 with an offset. Raises ``InvalidInput``."""
    try:
        at = parse_instant(value) if isinstance(value, str) else value.astimezone(UTC)
    except (InstantOutOfRange, OverflowError):
        raise _out_of_years(value, field) from None
    except ValueError:
        raise InvalidInput(
            f"{field}: {str(value)!r} is not an instant; write it like 2026-11-23T12:00:00Z", field=field
        ) from None
    if not _EARLIEST <= at < _LATEST:
        raise _out_of_years(value, field)
    return at


def _out_of_years(value: str | datetime, field: str) -> InvalidInput:
    return InvalidInput(f"{field}: {value!s} is not between the years 1970 and 9998", field=field)
