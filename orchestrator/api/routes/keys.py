"""Keys of callers: who has one, make one, end one; and who one is oneself (CONTRACT section 8)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.bodies import JSON, Body, json_body
from orchestrator.api.protocol.names import MAX_REASON_CHARACTERS, NAME_PATTERN, check_text
from orchestrator.api.protocol.openapi import accepts, describe, problems
from orchestrator.api.services import Wired, needs
from orchestrator.domain.scopes import Role, Scope
from orchestrator.history.views import key_view
from orchestrator.service.access import Permit, Principal
from orchestrator.service.keys import WantedKey, check_limit, lifetime_of

router = APIRouter(tags=["keys"])

Keeping = Annotated[Permit, needs(Scope.KEYS)]
PerMinute = Annotated[int | None, Field(ge=1, le=1_000_000_000, description="None: no limit")]


class KeyBody(Body):
    """A key that is wanted. A scope that is named takes the place of the role's, or comes beside it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, description="Who acts with it: the actor is key:NAME")]
    role: Annotated[Role, Field(strict=False)]
    scopes: Annotated[list[str], Field(max_length=100, description="NAME, NAME@fleet=GLOB, NAME@workspace=GLOB")] = (
        Field(default_factory=list)
    )
    expires: Annotated[str | None, Field(description="For how long it is valid, like 90d; none: until revoked")] = None
    writes_per_minute: PerMinute = None
    reads_per_minute: PerMinute = None


@router.get(
    "/v1/keys",
    operation_id="listKeys",
    summary="Who has a key, those that are over too",
    responses={200: describe(answers.KEYS, "Never a key itself"), **problems(422, 500, 503)},
)
def list_keys(desk: Wired, permit: Keeping) -> JSONResponse:
    """Return all keys, by name."""
    desk.note_export(permit, "keys", {})
    with desk.read(permit) as reader:
        keys, now = reader.access_keys(), reader.clock()
    return JSONResponse({"items": [key_view(key, now) for key in keys]})


@router.post(
    "/v1/keys",
    status_code=201,
    operation_id="createKey",
    summary="Make a key; it is shown this once",
    responses={201: describe(answers.NEW_KEY, "Made"), **problems(400, 408, 409, 413, 415, 422, 500, 503)},
    openapi_extra=accepts({JSON: "KeyBody"}),
)
def create_key(desk: Wired, permit: Keeping, body: Annotated[KeyBody, Depends(json_body(KeyBody))]) -> JSONResponse:
    """Make a key that may do no more than the caller.

    Whoever asks again gets another one, or a conflict of names: a key is not shown twice.
    """
    wanted = WantedKey(
        name=body.name,
        role=body.role,
        scopes=body.scopes,
        expires_after=None if body.expires is None else lifetime_of(body.expires, field="expires"),
        writes_per_minute=check_limit(body.writes_per_minute, "writes_per_minute"),
        reads_per_minute=check_limit(body.reads_per_minute, "reads_per_minute"),
    )
    made = desk.keys(permit).create(wanted, actor=permit.principal.actor, within=permit.principal.grants)
    return JSONResponse({"key": made.key, **key_view(made.stored, made.stored.created_at)}, 201)


@router.post(
    "/v1/keys/{key}/rotate",
    status_code=201,
    operation_id="rotateKey",
    summary="Make the key that takes another's place; both are valid for a day",
    responses={201: describe(answers.NEW_KEY, "Made"), **problems(404, 409, 422, 500, 503)},
)
def rotate_key(desk: Wired, key: str, permit: Keeping) -> JSONResponse:
    """Make a key of the same name and scopes as the live one of that name."""
    made = desk.keys(permit).rotate(key, actor=permit.principal.actor, within=permit.principal.grants)
    return JSONResponse({"key": made.key, **key_view(made.stored, made.stored.created_at)}, 201)


@router.delete(
    "/v1/keys/{key}",
    operation_id="revokeKey",
    summary="End a key: from the next request on it opens nothing",
    responses={200: describe(answers.REVOKED_KEYS, "What was ended"), **problems(404, 422, 500, 503)},
)
def revoke_key(
    desk: Wired,
    key: str,
    permit: Keeping,
    reason: Annotated[str, Query(min_length=1, max_length=MAX_REASON_CHARACTERS)] = "revoked",
) -> JSONResponse:
    """End a key, by its id, or all of a name."""
    check_text(reason, "reason", most=MAX_REASON_CHARACTERS)
    ended = desk.keys(permit).revoke(key, actor=permit.principal.actor, reason=reason)
    return JSONResponse({"revoked": [{"id": one.id, "name": one.name} for one in ended]})


@router.get(
    "/v1/whoami",
    operation_id="whoAmI",
    summary="Who one is here, and what one may do",
    responses={200: describe(answers.WHOAMI, "As the key says that came with the request"), **problems(422, 500, 503)},
)
async def who_am_i(request: Request) -> JSONResponse:
    """Return the actor of what one does, and one's scopes."""
    caller: Principal = request.state.principal
    return JSONResponse({"actor": caller.actor, "key": caller.key, "scopes": caller.grants.spelled()})
