"""What became of writes and requests; the answer can be held until it is final."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from orchestrator.api.fate_looks import FateLooks
from orchestrator.api.held import HeldAnswers
from orchestrator.api.protocol import answers
from orchestrator.api.protocol.leaving import watched
from orchestrator.api.protocol.openapi import describe, problems
from orchestrator.api.routes.history import QueryFields
from orchestrator.api.services import Reading, Wired
from orchestrator.api.tail import LogTail
from orchestrator.api.watches import SETTLING, Watch
from orchestrator.history.fate import fates_of
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
def get_writes(desk: Wired, permit: Reading, query: Annotated[FatesQuery, Query()]) -> JSONResponse:
    """Return fates in the order of the ids; an unknown id is named in ``missing``."""
    with desk.read(permit) as reader:
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
    permit: Reading, request: Request, write: str, query: Annotated[FateQuery, Query()]
) -> JSONResponse:
    """Return a fate. With ``wait``, hold the answer until it is final; that takes no thread and no statement."""
    looks: FateLooks = request.app.state.fate_looks
    deadline = time.monotonic() + query.wait
    position, fate = await looks.look(write, permit)
    if fate.final or not query.wait:
        return JSONResponse(fate_view(fate))
    tail: LogTail = request.app.state.tail
    held: HeldAnswers = request.app.state.held
    with tail.watching(fate.workspace, SETTLING, after=position) as watch, held.held(permit, watch.end):
        if tail.position > position:
            watch.touch(position)
        async with left_by_caller(request, watch):
            while not watch.ended and (left_s := deadline - time.monotonic()) > 0:
                await watch.wait(left_s)
                watch.clear()
                _, fate = await looks.look(write, permit)
                if fate.final:
                    break
    return JSONResponse(fate_view(fate))


@asynccontextmanager
async def left_by_caller(request: Request, watch: Watch) -> AsyncIterator[None]:
    """End the watch once the caller of a request without a body is gone, or has finished sending."""
    receive = watched(request.scope, request.receive, watch.end)

    async def follow() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        watch.end()

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
