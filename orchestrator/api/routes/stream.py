"""The log as server-sent events: from any position, live, without a gap or a double over reconnects."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

import msgspec
import structlog
from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from orchestrator.api.protocol.openapi import problems
from orchestrator.api.protocol.problems import Problem, RequestRefused, refused, respond
from orchestrator.api.routes.history import MOST_POSITION, Name, Position, QueryFields, event_types
from orchestrator.api.services import Wired
from orchestrator.api.tail import LOOK_AGAIN_S, LogTail
from orchestrator.bootstrap import Services
from orchestrator.domain.events import Recorded
from orchestrator.errors import Unavailable, Unreadable
from orchestrator.history.views import event_view
from orchestrator.ports.store import EventFilter

MOST_STREAMS = 100
HEARTBEAT_S = 15.0
RETRY_MS = 2_000

_PAGE = 200
_POSITION = re.compile(r"[0-9]{1,20}")
_encoder = msgspec.json.Encoder()
_log = structlog.get_logger("orchestrator")

router = APIRouter(tags=["events"])


class StreamQuery(QueryFields):
    """Which events, and from where on."""

    after: Annotated[Position | None, Field(description="None: only what comes from now on")] = None
    workspace: Name | None = None
    type: Annotated[list[str], Field(description="May be repeated")] = Field(default_factory=list)


class OpenStreams:
    """How many streams this process serves."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self.most, self.open = most, 0


class CountedStream(StreamingResponse):
    """A stream that counts as one of a bounded number, from its first byte to its end."""

    def __init__(
        self, content: AsyncIterator[bytes], streams: OpenStreams, headers: Mapping[str, str] | None = None
    ) -> None:
        steady = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers={**steady, **(headers or {})})
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it, or refuse it where too many are open."""
        if self._streams.open >= self._streams.most:
            await _full(Request(scope), self._streams.most)(scope, receive, send)
            return
        self._streams.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.open -= 1


class EventStream(CountedStream):
    """The log, live."""

    media_type = "text/event-stream"


@router.get(
    "/v1/events/stream",
    operation_id="streamEvents",
    summary="The log, live, as server-sent events",
    description=(
        "`id:` is the position, `event:` the type, `data:` the event as the export has it. A client that comes back "
        "with `Last-Event-ID` misses nothing and sees nothing twice. A comment every 15 s keeps the connection open."
    ),
    response_class=Response,
    responses={
        200: {
            "description": "Does not end by itself",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(400, 422, 429, 500, 503),
    },
)
async def stream_events(
    services: Wired,
    request: Request,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[str | None, Header(description="The last position that was seen")] = None,
) -> EventStream:
    """Stream events after a position; ``Last-Event-ID`` wins over ``after``."""
    types = event_types(query.type)
    newest = await run_in_threadpool(_newest, services)
    start = _start(last_event_id, query.after, newest)
    tail: LogTail = request.app.state.tail
    wanted = EventFilter(after=start, workspace=query.workspace, types=types, limit=_PAGE)
    return EventStream(_follow(services, tail, wanted), request.app.state.streams)


async def _follow(services: Services, tail: LogTail, wanted: EventFilter) -> AsyncIterator[bytes]:
    seen, said_at = wanted.after, time.monotonic()
    yield f"retry: {RETRY_MS}\n: from {seen}\n\n".encode()
    while not tail.stopping:
        grown = await tail.wait_beyond(seen, max(0.0, said_at + HEARTBEAT_S - time.monotonic()))
        while grown is not None and seen < grown and not tail.stopping:
            try:
                page = await run_in_threadpool(_page, services, wanted, seen, grown)
            except (Unavailable, Unreadable) as error:
                _log.warning("stream.waits", error=str(error), again_in_s=LOOK_AGAIN_S)
                await asyncio.sleep(LOOK_AGAIN_S)
                break
            # A short page was all there is up to `grown`, also where the filter lets nothing through.
            seen = page[-1].position if len(page) == wanted.limit else grown
            if page:
                yield b"".join(_frame(event) for event in page)
                said_at = time.monotonic()
        if time.monotonic() - said_at >= HEARTBEAT_S:
            yield b": still here\n\n"
            said_at = time.monotonic()


def _page(services: Services, wanted: EventFilter, after: int, to_position: int) -> list[Recorded]:
    with services.store.read() as reader:
        return reader.events(
            EventFilter(
                after=after,
                to_position=to_position,
                workspace=wanted.workspace,
                types=wanted.types,
                limit=wanted.limit,
            )
        )


def _newest(services: Services) -> int:
    with services.store.read() as reader:
        return reader.last_position()


def _frame(event: Recorded) -> bytes:
    head = f"id: {event.position}\nevent: {event.type}\ndata: ".encode()
    return head + _encoder.encode(event_view(event)) + b"\n\n"


def _start(last_event_id: str | None, after: int | None, newest: int) -> int:
    if last_event_id is None:
        return newest if after is None else after
    if _POSITION.fullmatch(last_event_id) is None or int(last_event_id) > MOST_POSITION:
        raise _bad_id("Last-Event-ID must be a position, as `id:` of the stream gave it")
    if int(last_event_id) > newest:
        raise _bad_id(f"Last-Event-ID {last_event_id} is beyond the end of this log ({newest}); it is of another one")
    return int(last_event_id)


def _bad_id(detail: str) -> RequestRefused:
    return refused("bad-request", detail, header="Last-Event-ID")


def _full(request: Request, most: int) -> Response:
    detail = f"{most} streams are open, which is all that one process serves; close one, or ask another process"
    return respond(request, Problem(name="too-many-requests", detail=detail, headers={"Retry-After": "5"}))
