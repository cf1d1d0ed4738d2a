"""The canonical bytes of an event: its line in the export (CONTRACT section 3), which is what is hashed and sealed.

Keys in the contract's order, no spaces, and the data's stored text verbatim: nothing is decoded on the way, so an
event of any schema, even one this version does not know, keeps its bytes.
"""

from __future__ import annotations

import msgspec

from orchestrator.ports import StoredEvent

_encoder = msgspec.json.Encoder()


def canonical_line(event: StoredEvent) -> bytes:
    """Return an event's line, without a line feed."""
    return _encoder.encode(event)


def canonical_lines(events: list[StoredEvent]) -> bytes:
    """Return the events as lines, each with its line feed."""
    return _encoder.encode_lines(events)
