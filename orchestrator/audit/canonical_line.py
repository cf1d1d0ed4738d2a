"""The canonical bytes of an event: its line in the export (CONTRACT section 3), which is what is hashed and sealed.

Keys in the contract's order, no spaces, and the data's stored text verbatim: nothing is decoded on the way, so an
event of any schema, even one this version does not know, keeps its bytes.
"""

from __future__ import annotations

import msgspec

from orchestrator.ports import StoredEvent


class _Line(msgspec.Struct):
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


_encoder = msgspec.json.Encoder()


def canonical_line(event: StoredEvent) -> bytes:
    """Return an event's line, without a line feed."""
    return _encoder.encode(_Line(*event[:13], msgspec.Raw(event[13])))


def canonical_lines(events: list[StoredEvent]) -> bytes:
    """Return the events as lines, each with its line feed."""
    return _encoder.encode_lines([_Line(*event[:13], msgspec.Raw(event[13])) for event in events])
