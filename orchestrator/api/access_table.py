"""Who may call what: the table of every route and every caller, made from the routes themselves.

docs/security.md shows it, and the tests hold each cell against a running API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.applications import Starlette

from orchestrator.api.protocol.request_context import PROBES
from orchestrator.api.services import Needs
from orchestrator.domain.scopes import EVERYTHING, ROLES, Grants, Role, Scope, grants_of
from orchestrator.service.access import UNAUTHENTICATED

OPEN = frozenset({"/livez", "/readyz", "/", "/openapi.json", "/v1/whoami"})
"""Routes that ask for no scope. Those that are no ``PROBES`` still ask for an admitted caller."""

NAMES_CODE = ("PUT /v1/workspaces/{workspace}", "whose target names code", Scope.REGISTER_CODE)
"""The operation that asks for one scope more, where its body makes it do so (``Permit.with_code``)."""

NO_KEY_CLOSED, NO_KEY, OWNER = "no key, closed", "no key, loopback", "owner's key"
LET_IN, NO_CALLER, NO_SCOPE = "yes", "401", "403"

CALLERS: Mapping[str, Grants | None] = {
    NO_KEY_CLOSED: None,
    NO_KEY: UNAUTHENTICATED.grants,
    **{role.value: grants_of(ROLES[role]) for role in Role},
    OWNER: EVERYTHING,
}
"""Every kind of caller by its name, with what it may; None: it is not admitted."""


class UnlistedRoute(Exception):
    """A route asks for no scope and is not one of ``OPEN``, or is of a kind of which nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A method of a route, and the scopes that it asks for, all of them; ``given``: only of such requests."""

    method: str
    path: str
    scopes: tuple[Scope, ...]
    given: str = ""

    @property
    def name(self) -> str:
        """Return it as the table names it."""
        return f"{self.method} {self.path}" + (f", {self.given}" if self.given else "")

    def answer_to(self, caller: str) -> str:
        """Return what one of ``CALLERS`` is answered with: ``LET_IN``, ``NO_CALLER`` or ``NO_SCOPE``."""
        grants = CALLERS[caller]
        if self.path in PROBES:
            return LET_IN
        if grants is None:
            return NO_CALLER
        if not any(grants.reach(scope).is_empty for scope in self.scopes):
            return LET_IN
        return NO_CALLER if caller == NO_KEY else NO_SCOPE


def operations(app: Starlette) -> list[Operation]:
    """Return every operation of the API, by path. Raises ``UnlistedRoute``."""
    found = [
        Operation(method=method, path=_path(route), scopes=_scopes(route))
        for route in iter_route_contexts(app.routes)
        for method in _methods(route)
    ]
    name, given, scope = NAMES_CODE
    with_code = [
        Operation(method=each.method, path=each.path, scopes=(*each.scopes, scope), given=given)
        for each in found
        if each.name == name
    ]
    return sorted([*found, *with_code], key=lambda each: (each.path, each.method, each.given))


def _path(route: RouteContext) -> str:
    if route.path is None:
        raise UnlistedRoute(f"{route.original_route!r} has no path: say here who may reach it")
    return route.path


def _methods(route: RouteContext) -> list[str]:
    if not route.methods:
        raise UnlistedRoute(f"{route.original_route!r} has no methods: say here who may reach it")
    return sorted(route.methods)


def _scopes(route: RouteContext) -> tuple[Scope, ...]:
    """Return what a route asks for: in the signature of its function, or ``needs`` of an ASGI app."""
    asks = getattr(route.endpoint, "needs", None)
    scopes = (asks,) if isinstance(asks, Scope) else tuple(_needed(getattr(route, "dependant", None)))
    if bool(scopes) == (route.path in OPEN):
        wrong = "is in OPEN, but asks for a scope" if scopes else "asks for no scope (`needs`), and is not in OPEN"
        raise UnlistedRoute(f"{'/'.join(sorted(route.methods or ()))} {route.path} {wrong}")
    return scopes


def _needed(dependant: Dependant | None) -> Iterator[Scope]:
    for each in () if dependant is None else dependant.dependencies:
        if isinstance(each.call, Needs):
            yield each.call.scope
        yield from _needed(each)


def in_markdown(found: list[Operation]) -> str:
    """Return the table as a page shows it, with a line end."""
    heads = ["operation", "scope", *CALLERS]
    rows = [heads, ["---"] * len(heads)]
    for each in found:
        scopes = " and ".join(f"`{scope}`" for scope in each.scopes) or "none"
        rows.append([f"`{each.method} {each.path}`{', ' + each.given if each.given else ''}", scopes])
        rows[-1] += [each.answer_to(caller) for caller in CALLERS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
