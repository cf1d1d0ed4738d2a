"""The API's own description, OpenAPI 3.1: what FastAPI sees, and by hand what only our own body reading knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orchestrator.api.protocol import answers, schemas
from orchestrator.api.protocol.bodies import Body
from orchestrator.api.protocol.problems import KINDS, MEDIA_TYPE, TYPE_PREFIX
from orchestrator.api.protocol.request_context import PROBES

_REF = "#/components/schemas/"
_DESCRIPTIONS = {
    400: "The request cannot be read",
    401: "A key is needed, and none came or one that is not valid",
    403: "The key does not allow it, or another site's page asks",
    404: "There is no such thing",
    408: "The body took too long to arrive",
    409: "The state of the thing, or a key that was used before, forbids it",
    412: "The thing has changed: If-Match names another version",
    413: "The body is too large",
    415: "The body's format is not supported",
    421: "The request names a host that is none of this API's (ORCHESTRATOR_ALLOWED_HOSTS)",
    422: "A value was refused",
    429: "Too much at once",
    500: "A fault of the server",
    503: "Try again later",
}

Responses = dict[int | str, dict[str, Any]]

TAGS = [
    {"name": "writes", "description": "Report file writes, and ask what became of them."},
    {"name": "workspaces", "description": "What can be restarted, and what people do to it."},
    {"name": "restarts", "description": "Which restarts there were, and why."},
    {"name": "events", "description": "The log itself: pages, and a live stream."},
    {"name": "policies", "description": "The numbers that decide when."},
    {"name": "keys", "description": "Who may do what."},
    {"name": "audit", "description": "Questions over many, exports, and proof that the log was not altered."},
    {"name": "health", "description": "For supervisors and monitoring."},
]


def problems(*statuses: int) -> Responses:
    """Return the responses of a route's errors."""
    schema = {"$ref": f"{_REF}Problem"}
    found: Responses = {}
    for status in statuses:
        found[status] = {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        if status == 401:
            found[status]["headers"] = {"WWW-Authenticate": _header("How to send a key", {"type": "string"})}
        if status in (429, 503):
            found[status]["headers"] = {"Retry-After": _header("Seconds to wait", {"type": "integer"})}
    return found


def describe(
    schema: str, text: str, *, location: bool = False, paged: bool = False, tagged: bool = False
) -> dict[str, Any]:
    """Return a good response: the name of its schema, its meaning, its headers."""
    response: dict[str, Any] = {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": _REF + schema}}},
    }
    headers = {
        "Location": (location, "Where to ask what became of it"),
        "Link": (paged, 'The next page, as rel="next", if there is one'),
        "ETag": (tagged, "The version, for If-Match"),
    }
    wanted = {name: _header(meaning, {"type": "string"}) for name, (there, meaning) in headers.items() if there}
    return response | ({"headers": wanted} if wanted else {})


def accepts(bodies: Mapping[str, str], *, keyed: bool = False) -> dict[str, Any]:
    """Return what FastAPI cannot see of a route: its body, by media type, and the header ``Idempotency-Key``."""
    content = {media_type: {"schema": {"$ref": _REF + name}} for media_type, name in bodies.items()}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if keyed:
        extra["parameters"] = [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same request with the same key is carried out once and answered alike",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            }
        ]
    return extra


def _header(meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": meaning, "schema": schema}


def install_openapi(app: FastAPI, by_hand: Mapping[str, dict[str, Any]]) -> None:
    """Make ``/openapi.json`` tell the truth; ``by_hand``: operations that are no routes of FastAPI, by their path."""

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app, by_hand)
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]


def _description(app: FastAPI, by_hand: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    found = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/"}],
    )
    own = {"Problem": _problem()} | answers.SCHEMAS | schemas.WRITES | {"PolicyBody": schemas.POLICY_BODY}
    for model in Body.__subclasses__():
        schema = model.model_json_schema(ref_template=_REF + "{model}")
        own |= schema.pop("$defs", {})
        own[model.__name__] = schema
    components = found.setdefault("components", {}).setdefault("schemas", {})
    components |= own
    for path, operations in by_hand.items():
        found["paths"][path] = operations | found["paths"].get(path, {})
    found["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key: ro_ and 33 letters and digits"}
    }
    for path, operations in found["paths"].items():
        for operation in operations.values() if path not in PROBES else ():
            operation["responses"] |= {
                str(status): response for status, response in problems(401, 403, 421, 429).items()
            }
            operation["security"] = [{}, {"key": []}]  # {}: most is answered without one, where that is not closed
    return found


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    place = dict.fromkeys(("pointer", "parameter", "header", "detail"), text)
    rejected = {"$ref": f"{_REF}Rejected"}
    return {
        "title": "Problem",
        "description": "RFC 9457. The type never changes its meaning.",
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "request_id"],
        "properties": {
            "type": {"type": "string", "enum": [TYPE_PREFIX + name for name in KINDS]},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "instance": {"type": "string", "description": "The path that was asked for"},
            "request_id": {"type": "string", "description": "The same as the header X-Request-Id"},
            "errors": {"type": "array", "items": {"type": "object", "required": ["detail"], "properties": place}},
            "near": {"type": "array", "items": text, "description": "Workspaces that may have been meant"},
            "accepted": {"type": "integer", "description": "Of a batch: 0"},
            "replayed": {"type": "integer", "description": "Of a batch: 0"},
            "results": {"type": "array", "maxItems": 0},
            "rejected": {"type": "array", "items": rejected, "description": "Of a batch: why each was refused"},
        },
    }
