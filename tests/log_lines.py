"""The whole log of a store, line by line as an export has it, also of a store that answers no auditor."""

from __future__ import annotations

from orchestrator.domain.canonical_line import canonical_lines
from orchestrator.ports.store import CoreStore, EventFilter


def log_lines(store: CoreStore) -> bytes:
    """Return every event's line, in the order of their positions."""
    with store.read() as reader:
        return canonical_lines(reader.stored_events(EventFilter(limit=1_000_000)))
