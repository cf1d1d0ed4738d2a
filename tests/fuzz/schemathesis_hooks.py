"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): held answers are asked for briefly, and three checks are ours.

Schemathesis' own ``positive_data_acceptance`` takes every refusal of what fits the schema for a fault. Some rules of
this API cannot be said in JSON Schema; ``only_said_rules_refuse`` lets these, and no others, refuse.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

from orchestrator.api.routes.fates import MOST_WAIT_S

UNSAID = re.compile(
    r"the cursor is not one of this query's"
    r"|is after until"
    r"|is not between the years 1970 and 9998"
    r"|is in the (future|past)"
    r"|is no later than now"
    r"|executor .* is not installed here"
    r"|is finer than a millisecond"
    r"|holds a NUL or half of a surrogate pair"
    r"|got `float`"
    r"|\.0 is not a whole number"
    r"|must have 1 to \d+ characters and not only blanks|must not be blank"
    r"|pattern .* can never match"
    r"|is no type of event"
    r"|policy\.[\w.\[\]]+: .*(must be|longer than|shorter than|is not between)"
    r"|target field .* is unknown|target\.\w+"
    r"|max_wait .* quiet|quiet .* max_wait"
    r"|none of the \d+ writes was accepted"
)
"""Rules about two fields, the clock, what is installed, the size of a duration, an executor's own fields, blanks, lists
that grow; and 1.0, which JSON Schema calls an integer."""

_BRIEFLY = "0.1"
_SECONDS = re.compile(r"[0-9]+([.][0-9]+)?")


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ask for an answer now rather than in a minute, where a wait is asked for that the description allows.

    Another one is there to be refused: made brief it was answered, and that was a finding (ST201).
    """
    asked = str((query or {}).get("wait", ""))
    if query and _SECONDS.fullmatch(asked) and float(asked) <= MOST_WAIT_S:
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


@schemathesis.check
def every_write_of_a_batch_is_told(context: Any, response: Any, case: Any) -> bool | None:
    """Fail where a batch was taken and an item of it is neither accepted nor rejected by name."""
    if (case.method, case.operation.path, response.status_code) != ("POST", "/v1/writes", 202):
        return None
    if isinstance(case.body, list):
        told = response.json()
        indexes = sorted(item["index"] for item in [*told["results"], *told["rejected"]])
        assert indexes == list(range(len(case.body))), f"{len(case.body)} writes, told of {indexes}"
    return None


_removed: set[str] = set()
"""Workspaces that were removed and not registered again. Schemathesis asks one thing after the other."""


@schemathesis.check
def what_is_removed_says_so(context: Any, response: Any, case: Any) -> bool | None:
    """Fail where a removed workspace is in another state, or another one is said to be removed."""
    if case.operation.path != "/v1/workspaces/{workspace}" or response.status_code not in (200, 201):
        return None
    told = response.json()
    if case.method == "DELETE":
        _removed.add(told["workspace"])
    elif case.method == "PUT":
        _removed.discard(told["id"])
    elif not (case.query or {}).get("at"):
        assert (told["state"] == "removed") == (told["id"] in _removed), f"{told['id']} is said to be {told['state']}"
    return None
