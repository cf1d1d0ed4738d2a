"""Every type of event that this version records."""

from __future__ import annotations

from orchestrator.domain import access_events, events
from orchestrator.domain.events import EventData, UnknownEvent

EVENT_TYPES: dict[str, type[EventData]] = {
    name: found
    for module in (events, access_events)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, EventData) and found not in (EventData, UnknownEvent)
}
"""Every event type by its name in the log."""

FACT_TYPES: frozenset[str] = frozenset(name for name, cls in EVENT_TYPES.items() if cls.FACT)
"""Types without a version."""
