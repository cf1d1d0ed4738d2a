"""The two ways in for writes as the API's description has them: by hand, as they are no routes of FastAPI."""

from __future__ import annotations

from typing import Any

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.bodies import JSON
from orchestrator.api.protocol.names import NAME_PATTERN
from orchestrator.api.protocol.openapi import accepts, describe, problems
from orchestrator.api.protocol.write_bodies import MAX_WRITES, NDJSON

ONE = "/v1/workspaces/{workspace}/writes"
MANY = "/v1/writes"

_MEANING = "A workspace's id"
_WORKSPACE = {
    "name": "workspace",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": NAME_PATTERN, "description": _MEANING, "title": "Workspace"},
    "description": _MEANING,
}


def _described(responses: dict[int | str, dict[str, Any]]) -> dict[str, Any]:
    return {"responses": {str(status): response for status, response in responses.items()}}


def _one() -> dict[str, Any]:
    extra = accepts({JSON: "WriteBody"}, keyed=True)
    return {
        "tags": ["writes"],
        "summary": "Report one write",
        "description": "Store one write; the answer comes after the commit.",
        "operationId": "writeFile",
        "parameters": [_WORKSPACE, *extra.pop("parameters")],
        **_described(
            {
                202: describe(answers.WRITE, "Stored", location=True),
                **problems(400, 404, 408, 409, 413, 415, 422, 500, 503),
            }
        ),
        **extra,
    }


def _many() -> dict[str, Any]:
    return {
        "tags": ["writes"],
        "summary": "Report a batch of writes",
        "description": (
            f"At most {MAX_WRITES} writes and 1 MiB, as a JSON array or one JSON object a line, in one transaction. "
            "Good ones are stored whatever the bad ones are: 202 if at least one was accepted. If none was, the answer "
            "is a 422 problem with the same members."
        ),
        "operationId": "writeFiles",
        **_described(
            {
                202: describe(answers.BATCH, "At least one is stored"),
                **problems(400, 408, 409, 413, 415, 422, 500, 503),
            }
        ),
        **accepts({JSON: "BatchedWriteBodies", NDJSON: "BatchedWriteBody"}, keyed=True),
    }


def write_operations() -> dict[str, dict[str, Any]]:
    """Return what the description says of both, by path and method."""
    return {ONE: {"post": _one()}, MANY: {"post": _many()}}
