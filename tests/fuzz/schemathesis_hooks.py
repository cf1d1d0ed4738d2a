"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): answers that are held back are asked for briefly, and one check is ours.

Schemathesis' own ``positive_data_acceptance`` takes every refusal of what fits the schema for a fault. Some rules of
this API cannot be said in JSON Schema; ``only_said_rules_refuse`` lets these, and no others, refuse.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

UNSAID = re.compile(
    r"the cursor is not one of this query's"
    r"|is after until"
    r"|is not between the years 1970 and 9998"
    r"|is in the future"
    r"|is no later than now"
    r"|executor .* is not installed here"
    r"|is finer than a millisecond"
    r"|holds a NUL or half of a surrogate pair"
    r"|got `float`"
    r"|\.0 is not a whole number"
    r"|labels: must have 1 to 256 characters"
    r"|is no type of event"
    r"|policy\.\w+: .*(must be|longer than|shorter than|is not between)"
    r"|target field .* is unknown|target\.\w+"
    r"|max_wait .* quiet|quiet .* max_wait"
    r"|none of the \d+ writes was accepted"
)
"""Rules about two fields, the clock, what is installed, the size of a duration, an executor's own fields, blanks, lists
that grow; and 1.0, which JSON Schema calls an integer."""

_BRIEFLY = "0.1"


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ask for an answer now rather than in a minute."""
    if query and str(query.get("wait", "")).replace(".", "", 1).isdigit():
        query["wait"] = _BRIEFLY
    return query


@schemathesis.check
def only_said_rules_refuse(context: Any, response: Any, case: Any) -> bool | None:
    """Fail where data that fits the schema is refused by a rule that the description could have said."""
    if response.status_code != 422 or case.meta is None or not case.meta.generation.mode.is_positive:
        return None
    said = response.json()["detail"]
    if UNSAID.search(said) is None:
        raise AssertionError(f"data that fits the schema is refused: {said}")
    return None
