"""RFC 9457 problems: every error of the API leaves in this one shape, with a type that never changes.

A type is ``urn:restart-orchestrator:problem:NAME``; the names and their statuses are ``KINDS``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from orchestrator import errors
from orchestrator.service.record import RefusedWrite

TYPE_PREFIX = "urn:restart-orchestrator:problem:"
MEDIA_TYPE = "application/problem+json"

KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "unauthenticated": (401, "A key is needed"),
    "forbidden": (403, "The key does not allow it"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "request-timeout": (408, "The request took too long to arrive"),
    "conflict": (409, "The state of the thing forbids it"),
    "key-reused": (409, "The key was used before for something else"),
    "not-sealed-yet": (409, "There is no proof yet"),
    "seal-refused": (409, "What is stored is not what was sealed"),
    "precondition-failed": (412, "The thing has changed"),
    "content-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body's format is not supported"),
    "misdirected-request": (421, "The request names another host"),
    "invalid-input": (422, "A value was refused"),
    "invalid-target": (422, "The executor refuses the target"),
    "unknown-executor": (422, "The executor is not installed"),
    "too-many-requests": (429, "Too much at once"),
    "quota-exceeded": (429, "The key has used up what it may ask for now"),
    "internal-error": (500, "This is a fault of the server"),
    "unreadable": (503, "The database holds what this version cannot read"),
    "unavailable": (503, "Try again later"),
    "storage-unavailable": (503, "The database does not serve now"),
    "migrations-pending": (503, "The database is behind on migrations"),
    "broker-unavailable": (503, "The broker does not answer"),
}
"""Every problem's name, its status and its title."""

_BY_STATUS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 413: "content-too-large"}
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_RETRY_AFTER_S = {"migrations-pending": 10, "not-sealed-yet": 10}
_RETRY_AFTER_DEFAULT_S = 2
_ASKS_FOR_KEY = {"WWW-Authenticate": 'Bearer realm="restart-orchestrator"'}
_REFUSAL = "refusal"
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_FIELD_PARTS = re.compile(r"[^.\[\]]+")


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """What is wrong with one value. One of ``pointer`` (into the body), ``parameter``, ``header`` names it."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None

    def plain(self) -> dict[str, str]:
        """Return it as JSON values, without what does not apply."""
        pairs = {"pointer": self.pointer, "parameter": self.parameter, "header": self.header, "detail": self.detail}
        return {name: value for name, value in pairs.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem; ``name`` is a key of ``KINDS``, ``more`` holds extension members."""

    name: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return KINDS[self.name][0]

    def plain(self) -> dict[str, Any]:
        """Return the members that do not depend on the request."""
        status, title = KINDS[self.name]
        members = {"type": TYPE_PREFIX + self.name, "title": title, "status": status, "detail": self.detail}
        if self.errors:
            members["errors"] = [error.plain() for error in self.errors]
        return {**members, **self.more}


class RequestRefused(errors.OrchestratorError):
    """A request is answered with ``problem``; raised where no error of the core says it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refused(name: str, detail: str, **where: str) -> RequestRefused:
    """Return the error for one problem; ``where`` is ``pointer=``, ``parameter=`` or ``header=``."""
    found = [FieldError(detail=detail, **where)] if where else []
    return RequestRefused(Problem(name=name, detail=detail, errors=found))


def problem_of(error: errors.OrchestratorError) -> Problem:
    """Return the problem that an error of this product is answered with."""
    if isinstance(error, RequestRefused):
        return error.problem
    names = (_kebab(cls.__name__) for cls in type(error).__mro__)
    name = next((name for name in names if name in KINDS), "internal-error")
    if isinstance(error, errors.InvalidInput):
        return Problem(
            name=name, detail=str(error), errors=[FieldError(detail=str(error), pointer=pointer(error.field))]
        )
    if isinstance(error, errors.RateExceeded):
        return _rate_exceeded(error)
    headers = _ASKS_FOR_KEY if name == "unauthenticated" else _retry_after(name)
    near = error.near if isinstance(error, errors.NotFound | errors.Forbidden) else ()
    return Problem(name=name, detail=str(error), headers=headers, more={"near": list(near)} if near else {})


def _rate_exceeded(error: errors.RateExceeded) -> Problem:
    headers = {"Retry-After": str(error.retry_after_s), "RateLimit-Policy": error.policy, "RateLimit": error.left}
    return Problem(
        name="quota-exceeded", detail=str(error), headers={name: value for name, value in headers.items() if value}
    )


def refused_write(refusal: RefusedWrite) -> Problem:
    """Return the problem of a write that the service refused."""
    found = [FieldError(detail=refusal.detail, pointer=pointer(refusal.field))] if refusal.field else []
    return Problem(name=_kebab(refusal.error), detail=refusal.detail, errors=found)


def pointer(name: str) -> str:
    """Return the JSON pointer (RFC 6901) of a field named like ``policy.rules[0].match``."""
    parts = _FIELD_PARTS.findall(name)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def respond(request: Request, problem: Problem) -> JSONResponse:
    """Return the response; it names the request."""
    members = problem.plain() | {"instance": request.url.path, "request_id": request.state.request_id}
    return JSONResponse(members, status_code=problem.status, headers=dict(problem.headers), media_type=MEDIA_TYPE)


def install_problems(app: FastAPI) -> None:
    """Make every error that a route or the router raises a problem."""
    app.add_exception_handler(errors.OrchestratorError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _own(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, errors.OrchestratorError):
        raise error
    return respond_to(request, error)


def respond_to(request: Request, error: errors.OrchestratorError) -> JSONResponse:
    """Return the response to an error of this product; one of the database's closes the gate before it."""
    if isinstance(error, errors.Unavailable) and not isinstance(error, errors.Overloaded):
        request.app.state.gate.close()
    if isinstance(error, errors.Unauthenticated | errors.Forbidden | errors.RateExceeded):
        request.scope["state"][_REFUSAL] = error
    return respond(request, problem_of(error))


def refusal_in(scope: Scope) -> errors.OrchestratorError | None:
    """Return for what a request was refused because of who sent it; None if it was not."""
    refused: errors.OrchestratorError | None = scope["state"].get(_REFUSAL)
    return refused


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    name = _BY_STATUS.get(error.status_code, "bad-request" if error.status_code < 500 else "internal-error")
    details = {
        404: f"there is nothing at {request.url.path}; /openapi.json lists what there is",
        405: f"{request.method} is not allowed at {request.url.path}; see the header Allow",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else dict(error.headers or {})
    return respond(request, Problem(name=name, detail=detail, headers=headers))


def _allowed(request: Request) -> str:
    """Return every method of the path: the router names those of the first route only, and each method is a route."""
    found = (method for method in _METHODS if _is_served({**request.scope, "method": method}))
    return ", ".join(found)


def _is_served(scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    return respond(request, invalid(error.errors()))


def invalid(found: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the problem of what Pydantic found, in the body (no prefix), the query, the path or a header."""
    places = [_place(tuple(each["loc"]), _sentence(each)) for each in found]
    return Problem(name="invalid-input", detail=_summary(places), errors=places)


def _place(loc: tuple[str | int, ...], detail: str) -> FieldError:
    if loc and loc[0] in ("query", "path"):
        return FieldError(detail=detail, parameter=".".join(str(part) for part in loc[1:]))
    if loc and loc[0] == "header":
        return FieldError(detail=detail, header=".".join(str(part) for part in loc[1:]))
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in loc)
    return FieldError(detail=detail, pointer="".join(f"/{part}" for part in parts))


def _sentence(found: Mapping[str, Any]) -> str:
    if found["type"] == "extra_forbidden":
        return "unknown field; remove it or correct its name"
    text: str = found["msg"].removeprefix("Value error, ")
    return text


def _summary(places: Sequence[FieldError]) -> str:
    first = places[0]
    name = first.pointer or first.parameter or first.header or "the body"
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{name}: {first.detail}{more}"


def _retry_after(name: str) -> dict[str, str]:
    if KINDS[name][0] not in (429, 503) and name not in _RETRY_AFTER_S:
        return {}
    return {"Retry-After": str(_RETRY_AFTER_S.get(name, _RETRY_AFTER_DEFAULT_S))}


def _kebab(name: str) -> str:
    return _WORD.sub("-", name).lower()
