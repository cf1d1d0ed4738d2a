"""Older events as today's: the data of a stored event, lifted to the current schema when it is read.

The stored bytes are never changed (S8), and what is shown of an event's data is still what is stored: a field that
an upcast adds is None and named in ``OMITTED``. The rules for whoever changes an event:

- A new field raises ``SCHEMA`` by one and gets a step here. Readers of an older version ignore it.
- A field that means something else, or is gone, is a new event type. An older version does not know it, says so, and
  folds nothing over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Plain = Mapping[str, Any]


def _cycle_started_1(data: Plain) -> Plain:
    """Add the version of the policy in force at the start, which nobody wrote down then."""
    return {**data, "policy_version": None}


def _restart_gave_up_1(data: Plain) -> Plain:
    """Say nothing of where its range ended: that tells a give-up of schema 1 apart, which was meant otherwise."""
    return {**data, "to_position": None}


def _key_created_1(data: Plain) -> Plain:
    """Say nothing of what the key was: nobody wrote that down then."""
    return {**data, "digest": None}


STEPS: Mapping[tuple[str, int], Callable[[Plain], Plain]] = {
    ("CycleStarted", 1): _cycle_started_1,
    ("RestartGaveUp", 1): _restart_gave_up_1,
    ("KeyCreated", 1): _key_created_1,
}
"""(type, schema) -> the data in the next schema."""


def upcast(type_name: str, schema: int, data: Plain, *, to: int) -> Plain:
    """Return the plain data of a stored event, of schema ``schema``, as schema ``to`` has it.

    A schema at or above ``to`` stays as it is. Raises ``KeyError`` for a schema that this type never had.
    """
    for number in range(schema, to):
        data = STEPS[type_name, number](data)
    return data
