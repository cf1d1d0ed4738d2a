"""What an offline check of evidence can find, by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a bundle of evidence."""

    MALFORMED = "malformed"
    WRONG_KEY = "wrong_key"
    BAD_SIGNATURE = "bad_signature"
    MISSING_SIGNATURE = "missing_signature"
    WRONG_ORIGIN = "wrong_origin"
    WRONG_RESTART = "wrong_restart"
    NOT_SEALED = "not_sealed"
    NOT_INCLUDED = "not_included"
    OUT_OF_ORDER = "out_of_order"
    FOREIGN_EVENT = "foreign_event"
    OMITTED = "omitted"
    CONTRADICTION = "contradiction"
    UNSETTLED = "unsettled"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in one sentence; ``position`` of the event where it shows, if it shows in one."""

    fault: Fault
    message: str
    position: int | None = None
