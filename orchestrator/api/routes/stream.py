"""The log as server-sent events: from any position, live, without a gap or a double over reconnects."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

import structlog
from fastapi import APIRouter, FastAPI, Header, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from orchestrator.api.held import HeldAnswers
from orchestrator.api.listener import Archive, Listener
from orchestrator.api.protocol.leaving import watched
from orchestrator.api.protocol.openapi import problems
from orchestrator.api.protocol.problems import Problem, RequestRefused, refused, respond
from orchestrator.api.routes.history import MOST_POSITION, Name, Position, QueryFields, event_types
from orchestrator.api.services import Desk, Reading, Wired
from orchestrator.api.tail import LogTail
from orchestrator.domain.scopes import Scope as Scopes
from orchestrator.errors import OrchestratorError, Unauthenticated
from orchestrator.ports.store import EventFilter
from orchestrator.service.access import Permit

MOST_STREAMS = 1_000
HEARTBEAT_S = 15.0
RETRY_MS = 2_000

_log = structlog.get_logger("orchestrator")
_POSITION = re.compile(r"[0-9]{1,20}")

router = APIRouter(tags=["events"])


class StreamQuery(QueryFields):
    """Which events, and from where on."""

    after: Annotated[Position | None, Field(description="None: only what comes from now on")] = None
    workspace: Name | None = None
    type: Annotated[list[str], Field(description="May be repeated")] = Field(default_factory=list)


class OpenStreams:
    """How many streams of a kind this process serves."""

    def __init__(self, most: int) -> None:
        self.most, self.open = most, 0


class CountedStream(StreamingResponse):
    """A stream that counts as one of a bounded number, from its first byte to its end."""

    def __init__(
        self, content: AsyncIterator[bytes], streams: OpenStreams, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, headers={"X-Accel-Buffering": "no", **(headers or {})})
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it, or refuse it where too many are open."""
        if self._streams.open >= self._streams.most:
            await _full(Request(scope), self._streams.most)(scope, receive, send)
            return
        self._streams.open += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._streams.open -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


class EventStream(CountedStream):
    """The log, live, from ``wanted.after`` on."""

    media_type = "text/event-stream"

    def __init__(self, app: FastAPI, permit: Permit, wanted: EventFilter, *, newest: int) -> None:
        """``newest`` is the log's last position at some time since the request. Raises ``Forbidden``."""
        permit.need(Scopes.READ)
        self._desk: Desk = app.state.desk
        self._held: HeldAnswers = app.state.held
        self._permit = permit
        super().__init__(self._frames(), app.state.streams)
        self._tail: LogTail = app.state.tail
        self._archive: Archive = app.state.archive
        self._wanted, self._newest = wanted, newest

    async def _frames(self) -> AsyncIterator[bytes]:
        listener = Listener(self._archive, self._tail, self._watch, self._wanted)
        yield f"retry: {RETRY_MS}\n: from {listener.seen}\n\n".encode()
        while not self._watch.ended:
            frames = await listener.frames(HEARTBEAT_S)
            if frames and not await self._may_be_seen():
                return
            if frames or not self._watch.ended:
                yield frames or b": still here\n\n"

    async def _may_be_seen(self) -> bool:
        """Return whether what was just read may be sent: the workspace may have left the fleets of its caller."""
        if self._permit.reach.everywhere:
            return True
        try:
            await run_in_threadpool(_newest, self._desk, self._permit, self._wanted.workspace)
        except OrchestratorError as error:
            _log.info("stream.ends", why=str(error))
            return False
        return True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        types = frozenset(self._wanted.types)
        with self._tail.watching(self._wanted.workspace, types, after=self._newest, reads=True) as self._watch:
            try:
                with self._held.held(self._permit, self._watch.end):
                    await super()._serve(scope, watched(scope, receive, self._watch.end), send)
            except Unauthenticated as error:
                _log.info("stream.ends", why=str(error))


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
        **problems(400, 404, 422, 429, 500, 503),
    },
)
async def stream_events(
    desk: Wired,
    permit: Reading,
    request: Request,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[str | None, Header(description="The last position that was seen")] = None,
) -> EventStream:
    """Stream events after a position; ``Last-Event-ID`` wins over ``after``."""
    types = event_types(query.type)
    newest = await run_in_threadpool(_newest, desk, permit, query.workspace)
    start = _start(last_event_id, query.after, newest)
    wanted = EventFilter(after=start, workspace=query.workspace, types=types)
    return EventStream(request.app, permit, wanted, newest=newest)


def _newest(desk: Desk, permit: Permit, workspace: str | None) -> int:
    """Return the last position. Raises ``Forbidden`` for a stream of more than the caller may read."""
    with desk.read(permit) as reader:
        if not permit.reach.everywhere:
            reader.events(EventFilter(workspace=workspace, limit=1))
        return reader.last_position()


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
