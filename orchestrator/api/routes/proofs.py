"""What proves the log to somebody who trusts nobody here: signed checkpoints, and evidence of single restarts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.cursors import Paging
from orchestrator.api.protocol.openapi import describe, problems
from orchestrator.api.routes.history import Page, page_of
from orchestrator.api.services import Auditing, Wired
from orchestrator.history.views import checkpoint_view
from orchestrator.sealing.bundle import make_bundle

router = APIRouter(tags=["audit"])


@router.get(
    "/v1/audit/checkpoints",
    operation_id="listCheckpoints",
    summary="Signed checkpoints of the log, newest first",
    responses={200: describe(answers.CHECKPOINTS, "A page", paged=True), **problems(422, 500, 503)},
)
def list_checkpoints(desk: Wired, permit: Auditing, request: Request, query: Annotated[Page, Query()]) -> JSONResponse:
    """Return a page of checkpoints."""
    paging = Paging(name="checkpoints", filters={})
    before = paging.place(query.cursor, int)
    with desk.read(permit) as reader:
        found = reader.seals.checkpoints(before=None if before is None else int(before), limit=query.limit + 1)
    page = found[: query.limit]
    place = page[-1].tree_size if len(found) > query.limit else None
    return page_of(request, [checkpoint_view(checkpoint) for checkpoint in page], paging, place)


@router.get(
    "/v1/audit/evidence/{restart}",
    operation_id="getEvidence",
    summary="The evidence of a restart, which `orchestrator audit verify` checks offline",
    description="409 with `Retry-After` while the restart is not settled, or its end not sealed yet.",
    responses={200: describe(answers.EVIDENCE, "The bundle"), **problems(404, 409, 422, 500, 503)},
)
def get_evidence(desk: Wired, permit: Auditing, restart: str) -> Response:
    """Return the bundle, byte for byte as it is to be kept."""
    with desk.read(permit) as reader:
        bundle = make_bundle(reader, restart)
    desk.note_export(permit, "evidence", {"restart": restart})
    return Response(bundle, media_type="application/json")
