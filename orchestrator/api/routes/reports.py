"""Questions over many: what coalescing did, the largest storms, the hottest files, what failed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.instants import span_of
from orchestrator.api.protocol.openapi import describe, problems
from orchestrator.api.routes.history import Limit, Name, QueryFields
from orchestrator.api.services import Reading, Wired
from orchestrator.history.failures import failures
from orchestrator.history.hot_files import hot_files
from orchestrator.history.storms import storms
from orchestrator.history.summary import summary
from orchestrator.history.views import failures_view, hot_files_view, restart_view, summary_view
from orchestrator.ports.inquiries import Scope

router = APIRouter(tags=["audit"])

Instant = Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]


class ScopeQuery(QueryFields):
    """What a question is about: restarts queued, and events recorded, from ``since`` on and before ``until``."""

    workspace: Name | None = None
    fleet: Name | None = None
    since: Instant = None
    until: Instant = None

    def scope(self) -> Scope:
        """Return it for the store. Raises ``RequestRefused`` for an impossible span."""
        return Scope(workspace=self.workspace, fleet=self.fleet, **span_of(self.since, self.until))


class TopQuery(ScopeQuery):
    """What a question is about, and how many are wanted."""

    limit: Limit = 20


@router.get(
    "/v1/audit/summary",
    operation_id="getAuditSummary",
    summary="What coalescing did: restarts, writes covered, restarts avoided, waits, failures",
    responses={200: describe(answers.SUMMARY, "Sums over the scope"), **problems(404, 422, 500, 503)},
)
def get_summary(desk: Wired, permit: Reading, query: Annotated[ScopeQuery, Query()]) -> JSONResponse:
    """Return sums over restarts and failures; ``complete`` is false where only the newest were looked at."""
    scope = query.scope()
    with desk.read(permit) as reader:
        return JSONResponse(summary_view(scope, summary(reader, scope)))


@router.get(
    "/v1/audit/storms",
    operation_id="listStorms",
    summary="The restarts that answered for the most writes",
    responses={200: describe(answers.STORMS, "Restarts, most writes first"), **problems(404, 422, 500, 503)},
)
def list_storms(desk: Wired, permit: Reading, query: Annotated[TopQuery, Query()]) -> JSONResponse:
    """Return the restarts with the most writes."""
    scope = query.scope()
    with desk.read(permit) as reader:
        found = storms(reader, scope, query.limit)
    return JSONResponse({"items": [restart_view(record) for record in found]})


@router.get(
    "/v1/audit/hot-files",
    operation_id="listHotFiles",
    summary="The files that are written most",
    responses={200: describe(answers.HOT_FILES, "Files, most writes first"), **problems(404, 422, 500, 503)},
)
def list_hot_files(desk: Wired, permit: Reading, query: Annotated[TopQuery, Query()]) -> JSONResponse:
    """Return the files with the most writes, whatever became of those."""
    scope = query.scope()
    with desk.read(permit) as reader:
        return JSONResponse(hot_files_view(hot_files(reader, scope, query.limit)))


@router.get(
    "/v1/audit/failures",
    operation_id="listFailures",
    summary="Failed and abandoned cycles and give-ups: how often by kind, and the newest",
    responses={200: describe(answers.FAILURES, "Counts, and the newest failures"), **problems(404, 422, 500, 503)},
)
def list_failures(desk: Wired, permit: Reading, query: Annotated[TopQuery, Query()]) -> JSONResponse:
    """Return how often cycles failed, by kind, and the newest failures."""
    scope = query.scope()
    with desk.read(permit) as reader:
        return JSONResponse(failures_view(failures(reader, scope, query.limit)))
