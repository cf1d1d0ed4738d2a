"""The canonical bytes of an event: its line in the export (CONTRACT section 3), which is what is hashed and sealed.

Keys in the contract's order, no spaces, and the data's stored text verbatim: nothing is decoded on the way, so an
event of any schema, even one this version does not know, keeps its bytes.
"""

from __future__ import annotations

import msgspec

_encoder = msgspec.json.Encoder()


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the database keeps it, nothing decoded: in the order of the export's keys (CONTRACT section 3).

    Instants are RFC 3339 in UTC with six digits; ``data`` is the stored canonical text. Encoded as JSON it is its
    line in the export. Never in a cycle, so the garbage collector need not look at the thousands of a page.
    """

    position: int
    id: str
    workspace: str | None
    version: int | None
    type: str
    schema: int
    recorded_at: str
    occurred_at: str | None
    actor: str
    source: str | None
    source_id: str | None
    correlation_id: str | None
    causation_id: str | None
    data: msgspec.Raw


def canonical_line(event: StoredEvent) -> bytes:
    """Return an event's line, without a line feed."""
    return _encoder.encode(event)


def canonical_lines(events: list[StoredEvent]) -> bytes:
    """Return the events as lines, each with its line feed."""
    return _encoder.encode_lines(events)
