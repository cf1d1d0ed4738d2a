"""The export over HTTP: streamed, a page a reading transaction, so that memory stays flat on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.openapi import problems
from orchestrator.api.routes.history import Position
from orchestrator.api.routes.reports import ScopeQuery
from orchestrator.api.routes.stream import CountedStream
from orchestrator.api.services import Wired, needs
from orchestrator.domain.scopes import Scope
from orchestrator.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from orchestrator.history.export import Export, Subject
from orchestrator.history.export_formats import Format
from orchestrator.service.access import Access, Permit

MOST_EXPORTS = 100

_MEDIA_TYPES = {
    Format.NDJSON: "application/x-ndjson",
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.JSON: "application/json",
}
Exporting = Annotated[Permit, needs(Scope.EXPORT)]

_log = structlog.get_logger("orchestrator")

router = APIRouter(tags=["audit"])


class ExportQuery(ScopeQuery):
    """What is exported, and how it is written."""

    of: Subject = Subject.EVENTS
    format: Annotated[Format, Field(description="CSV: a cell that might be a formula begins with an apostrophe")] = (
        Format.NDJSON
    )
    after: Annotated[Position, Field(description="Only what comes after this position of the log")] = 0


@router.get(
    "/v1/audit/export",
    operation_id="exportLog",
    summary="The log, or the restarts, as a file",
    response_class=Response,
    responses={
        200: {
            "description": "Up to the last position when it was asked for. A connection that ends early ends without "
            "its last chunk: go on after the last position that came",
            "content": {
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
                "application/json": {"schema": {"$ref": f"#/components/schemas/{answers.EXPORT}"}},
            },
            "headers": {
                "Content-Disposition": {"description": "A name for the file", "schema": {"type": "string"}},
            },
        },
        **problems(404, 422, 429, 500, 503),
    },
)
async def export_log(
    desk: Wired, permit: Exporting, request: Request, query: Annotated[ExportQuery, Query()]
) -> CountedStream:
    """Stream the export. A process serves a bounded number of them at a time."""
    wanted = Export(of=query.of, format=query.format, after=query.after, scope=query.scope())
    pieces = await run_in_threadpool(desk.exported, permit, wanted)
    headers = {
        "Content-Type": _MEDIA_TYPES[wanted.format],
        "Content-Disposition": f'attachment; filename="{wanted.file_name}"',
    }
    return CountedStream(_bodies(pieces, permit, request.app.state.access), request.app.state.exports, headers)


async def _bodies(pieces: Iterator[tuple[bytes, int]], permit: Permit, access: Access) -> AsyncIterator[bytes]:
    while True:
        try:
            piece = await run_in_threadpool(next, pieces, None)
            if permit.principal.key is not None and access.book.is_old:
                await run_in_threadpool(access.book.look)
            access.need_live(permit.principal)
        except (Unavailable, Unauthenticated, Forbidden, NotFound) as error:
            # The status is sent: only an end without the last chunk tells the client that this is a part.
            _log.warning("export.broken", error=str(error))
            raise ClientDisconnect from None
        if piece is None:
            return
        yield piece[0]
