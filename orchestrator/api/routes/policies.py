"""The policies of all workspaces and of fleets: read and replace a layer, guarded by its version."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path
from fastapi.responses import JSONResponse

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.bodies import JSON, json_object
from orchestrator.api.protocol.names import NAME_PATTERN
from orchestrator.api.protocol.openapi import Responses, accepts, describe, problems
from orchestrator.api.protocol.problems import FieldError, Problem, RequestRefused, pointer, refused
from orchestrator.api.services import Desk, Reading, Wired, need_fleet, needs
from orchestrator.domain.policy import (
    DEFAULT_SCOPE,
    Policies,
    PolicyPatch,
    check_lease,
    fleet_scope,
    parse_policy,
)
from orchestrator.domain.scopes import Scope
from orchestrator.errors import InvalidInput
from orchestrator.history.views import policy_view
from orchestrator.service.access import Permit

_ETAG = re.compile(r'"(\d{1,18})"')
_IF_MATCH = r'^(\*|"[0-9]{1,18}")$'

router = APIRouter(tags=["policies"])

Fleet = Annotated[str, Path(pattern=NAME_PATTERN, description="A fleet's name")]
IfMatch = Annotated[
    str | None, Header(description="Replace only this version", json_schema_extra={"pattern": _IF_MATCH})
]
Changing = Annotated[Permit, needs(Scope.POLICIES)]
Numbers = Annotated[dict[str, Any], Depends(json_object)]
_READ: Responses = {200: describe(answers.POLICY, "The layer, empty at version 0 if there is none", tagged=True)}
_CHANGED: Responses = {200: describe(answers.POLICY, "The layer as it is now", tagged=True)}
_READ_PROBLEMS = problems(422, 500, 503)
_CHANGE_PROBLEMS = problems(400, 408, 412, 413, 415, 422, 500, 503)
_BODY = accepts({JSON: "PolicyBody"})


@router.get(
    "/v1/policies/default",
    operation_id="getDefaultPolicy",
    summary="The policy of all workspaces",
    responses={**_READ, **_READ_PROBLEMS},
)
def get_default(desk: Wired, permit: Reading) -> JSONResponse:
    """Return the layer ``default``."""
    return _read(desk, permit, None)


@router.put(
    "/v1/policies/default",
    operation_id="putDefaultPolicy",
    summary="Replace the policy of all workspaces",
    responses={**_CHANGED, **_CHANGE_PROBLEMS},
    openapi_extra=_BODY,
)
def put_default(desk: Wired, permit: Changing, numbers: Numbers, if_match: IfMatch = None) -> JSONResponse:
    """Replace the layer ``default``; due times of open windows follow at once."""
    return _change(desk, permit, None, numbers, if_match)


@router.get(
    "/v1/policies/fleets/{fleet}",
    operation_id="getFleetPolicy",
    summary="The policy of a fleet",
    responses={**_READ, **_READ_PROBLEMS},
)
def get_fleet(desk: Wired, fleet: Fleet, permit: Reading) -> JSONResponse:
    """Return a fleet's layer."""
    need_fleet(permit, fleet)
    return _read(desk, permit, fleet)


@router.put(
    "/v1/policies/fleets/{fleet}",
    operation_id="putFleetPolicy",
    summary="Replace the policy of a fleet",
    responses={**_CHANGED, **_CHANGE_PROBLEMS},
    openapi_extra=_BODY,
)
def put_fleet(desk: Wired, permit: Changing, fleet: Fleet, numbers: Numbers, if_match: IfMatch = None) -> JSONResponse:
    """Replace a fleet's layer; due times of its open windows follow at once."""
    return _change(desk, permit, fleet, numbers, if_match)


def _read(desk: Desk, permit: Permit, fleet: str | None) -> JSONResponse:
    with desk.read(permit) as reader:
        return _answer(reader.policies(), fleet)


def _change(
    desk: Desk, permit: Permit, fleet: str | None, numbers: dict[str, Any], if_match: str | None
) -> JSONResponse:
    expected, patch = _expected(if_match), _parsed(numbers, desk.settings.tick_ms)
    desk.change_policy(
        permit,
        scope=DEFAULT_SCOPE if fleet is None else fleet_scope(fleet),
        fleet=fleet,
        patch=patch,
        expected_version=expected,
    )
    return _read(desk, permit, fleet)


def _parsed(numbers: dict[str, Any], tick_ms: int) -> PolicyPatch:
    """Return the layer. Raises ``RequestRefused`` that points into the body, which is the policy itself."""
    try:
        patch = parse_policy(numbers, field="policy")
        check_lease(patch.lease_ms, tick_ms=tick_ms)
    except InvalidInput as error:
        found = FieldError(detail=str(error), pointer=pointer(error.field.removeprefix("policy")))
        raise RequestRefused(Problem(name="invalid-input", detail=str(error), errors=[found])) from None
    return patch


def _answer(policies: Policies, fleet: str | None) -> JSONResponse:
    view = policy_view(policies, fleet)
    layer = policies.layers.get(view["scope"])
    version = layer.version if layer else 0
    answer = {**view, "version": version, "in_force_version": view["version"]}
    return JSONResponse(answer, headers={"ETag": f'"{version}"'})


def _expected(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise refused("bad-request", 'If-Match must be one ETag of this policy, like "3"', header="If-Match")
    return int(found[1])
