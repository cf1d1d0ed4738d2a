"""Schemas of the bodies of writes, which msgspec decodes and FastAPI cannot see."""

from __future__ import annotations

from typing import Any

from orchestrator.api.names import NAME_PATTERN
from orchestrator.domain.events import Operation
from orchestrator.domain.paths import MAX_PATH_BYTES

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
