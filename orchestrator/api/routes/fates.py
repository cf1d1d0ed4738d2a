"""What became of writes and requests; the answer can be held until it is final."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.openapi import describe, problems
from orchestrator.api.routes.history import QueryFields
from orchestrator.api.services import Wired
from orchestrator.api.tail import LogTail
from orchestrator.bootstrap import Services
from orchestrator.history.fate import Fate, fate_of, fates_of
from orchestrator.history.views import fate_view

MOST_IDS = 100
MOST_WAIT_S = 60.0

router = APIRouter(tags=["writes"])

Id = Annotated[str, Field(max_length=200)]


class FateQuery(QueryFields):
    """How long to hold the answer."""

    wait: Annotated[float, Field(ge=0, le=MOST_WAIT_S, allow_inf_nan=False, description="Seconds")] = 0.0


class FatesQuery(QueryFields):
    """Which writes and requests."""

    id: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS, description="May be repeated")]


@router.get(
    "/v1/writes",
    operation_id="getWrites",
    summary="What became of some writes or requests",
    responses={200: describe(answers.FATES, "Those that exist, and the ids that do not"), **problems(422, 500, 503)},
)
def get_writes(services: Wired, query: Annotated[FatesQuery, Query()]) -> JSONResponse:
    """Return fates in the order of the ids; an unknown id is named in ``missing``."""
    with services.store.read() as reader:
        found = fates_of(reader, query.id)
    items = [fate_view(found[write]) for write in query.id if write in found]
    return JSONResponse({"items": items, "missing": [write for write in query.id if write not in found]})


@router.get(
    "/v1/writes/{write}",
    operation_id="getWrite",
    summary="What became of one write or request",
    responses={200: describe(answers.FATE, "As it stands, or final"), **problems(404, 422, 500, 503)},
)
async def get_write(
    services: Wired, request: Request, write: str, query: Annotated[FateQuery, Query()]
) -> JSONResponse:
    """Return a fate. With ``wait``, hold the answer until it is final; no thread and no connection is held."""
    tail: LogTail = request.app.state.tail
    deadline = time.monotonic() + query.wait
    while True:
        position, fate = await run_in_threadpool(_look, services, write)
        left = deadline - time.monotonic()
        if fate.final or left <= 0 or tail.stopping or await request.is_disconnected():
            return JSONResponse(fate_view(fate))
        await tail.wait_beyond(position, min(left, 1.0))


def _look(services: Services, write: str) -> tuple[int, Fate]:
    with services.store.read() as reader:
        return reader.last_position(), fate_of(reader, write)
