"""Schemas of the bodies that FastAPI cannot see: writes, which msgspec decodes, and policies, which the core reads."""

from __future__ import annotations

from typing import Any

from orchestrator.api.protocol.names import NAME_PATTERN
from orchestrator.domain.durations import LONGEST_MS
from orchestrator.domain.events import Operation
from orchestrator.domain.paths import MAX_PATH_BYTES
from orchestrator.domain.policy import COUNTS, DURATIONS_ABOVE_ZERO, DURATIONS_FROM_ZERO, MAX_RULES, Action, Edge, Mode

_TEXT = {"type": ["string", "null"], "minLength": 1, "maxLength": 256}
_FIELDS: dict[str, Any] = {
    "path": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_PATH_BYTES,
        "description": f"Data, never opened. At most {MAX_PATH_BYTES} bytes as stored; a path with a NUL or half of a "
        "surrogate pair is stored percent-encoded",
    },
    "op": {"type": "string", "enum": [op.value for op in Operation], "default": Operation.MODIFIED.value},
    "source": {**_TEXT, "description": "Who saw the write; the actor if it is left out"},
    "id": {**_TEXT, "description": "The source's own id: the same source and id again are stored once"},
    "occurred_at": {"type": ["string", "null"], "format": "date-time", "description": "With an offset; kept, not used"},
    "digest": {**_TEXT, "description": "Of the content"},
    "size": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**63 - 1, "description": "In bytes"},
}
_WORKSPACE = {"workspace": {"type": "string", "pattern": NAME_PATTERN}}


def _write(required: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": fields, "additionalProperties": False}


WRITES: dict[str, Any] = {
    "WriteBody": _write(["path"], _FIELDS),
    "BatchedWriteBody": _write(["workspace", "path"], _WORKSPACE | _FIELDS),
    "BatchedWriteBodies": {
        "type": "array",
        "minItems": 1,
        "maxItems": 10_000,
        "items": {"$ref": "#/components/schemas/BatchedWriteBody"},
    },
}

_DURATION: dict[str, Any] = {
    "type": ["string", "number", "null"],
    "pattern": r"^\s*([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)\s*$",
    "maxLength": 40,
    "minimum": 0,
    "maximum": LONGEST_MS / 1000,
    "description": "Like 15s, 1m30s or 500ms, or seconds; whole milliseconds, at most 30 days",
}
_POSITIVE = {**_DURATION, "description": _DURATION["description"] + "; longer than 0s"}
_PATTERNS = {"type": "array", "minItems": 1, "items": {"type": "string"}}
_RULE = {
    "type": "object",
    "required": ["match"],
    "additionalProperties": False,
    "properties": {
        "match": {"anyOf": [{"type": "string"}, _PATTERNS], "description": "Patterns as .gitignore has them"},
        "action": {"type": "string", "enum": [action.value for action in Action], "default": Action.RESTART.value},
        "quiet": _DURATION,
        "max_wait": _POSITIVE,
    },
}
_NUMBERS: dict[str, Any] = {
    **dict.fromkeys(DURATIONS_FROM_ZERO, _DURATION),
    **dict.fromkeys(DURATIONS_ABOVE_ZERO, _POSITIVE),
    **{name: {"type": ["integer", "null"], "minimum": 1, "maximum": most} for name, most in COUNTS.items()},
    "edge": {"enum": [*(edge.value for edge in Edge), None]},
    "mode": {"enum": [*(mode.value for mode in Mode), None]},
    "rules": {"type": ["array", "null"], "maxItems": MAX_RULES, "items": _RULE},
}
POLICY_BODY: dict[str, Any] = {
    "type": "object",
    "properties": _NUMBERS,
    "additionalProperties": False,
    "description": "Numbers as people write them, like {quiet: 2s}. What is left out, or null, follows the layer below",
}
