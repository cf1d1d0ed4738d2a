"""The HTTP API: its rooms put together (CONTRACT section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from orchestrator.api.commits import Commits
from orchestrator.api.fate_looks import FateLooks
from orchestrator.api.held import HeldAnswers
from orchestrator.api.listener import Archive
from orchestrator.api.protocol.gate import Gate, need_database
from orchestrator.api.protocol.hosts import Hosts
from orchestrator.api.protocol.openapi import install_openapi
from orchestrator.api.protocol.problems import install_problems
from orchestrator.api.protocol.request_context import RequestContext
from orchestrator.api.protocol.write_operations import write_operations
from orchestrator.api.routes import (
    exports,
    fates,
    health,
    history,
    ingest,
    keys,
    metrics,
    operate,
    policies,
    proofs,
    reports,
    stream,
)
from orchestrator.api.services import Desk
from orchestrator.api.tail import LogTail
from orchestrator.bootstrap import Services, build_access
from orchestrator.errors import Unavailable
from orchestrator.owner_key import new_key
from orchestrator.service.access import Access
from orchestrator.service.access_record import AccessRecord
from orchestrator.service.keys import KeyKeeper

_DESCRIPTION = "Restarts a workspace once, at the right moment, after a burst of file writes, and says why."
_RECORD_EVERY_S = 60.0
_log = structlog.get_logger("orchestrator")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

index = APIRouter(include_in_schema=False)


class Api(FastAPI):
    """FastAPI, except that a write goes straight to its way in."""

    def __init__(self, *, hosts: Hosts, access: Access, record: AccessRecord, **about: Any) -> None:
        """Wire both ways of a request; ``about`` is FastAPI's."""
        super().__init__(**about)
        self.add_middleware(RequestContext, hosts=hosts, access=access, record=record)
        self._ways_in = RequestContext(ingest.serve, hosts=hosts, access=access, record=record)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if ingest.is_write(scope):
            scope["app"] = self
            await self._ways_in(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
        if scope["type"] == "http" and scope["method"] not in _READING:
            tail: LogTail = self.state.tail
            tail.nudge()


def create_app(services: Services) -> Api:
    """Return the API over a wired process. It does not own the services: whoever opened them closes them.

    Raises ``InvalidInput`` for an owner's key that is missing or cannot be used.
    """
    access, record = build_access(services), AccessRecord(services.store, services.ids)
    app = Api(
        hosts=Hosts(services.settings.allowed_host_names),
        access=access,
        record=record,
        title="restart-orchestrator",
        version=version("restart-orchestrator"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it reads the environment at every request
    )
    app.state.access, app.state.access_record = access, record
    app.state.desk = Desk(
        services, KeyKeeper(services.store, services.ids, new_key=new_key, on_change=access.book.forget), record
    )
    app.state.commits = Commits(services.store)
    app.state.gate = Gate(services.store)
    app.state.tail = LogTail(services.store)
    app.state.archive = Archive(services.store)
    app.state.fate_looks = FateLooks(app.state.desk, services.store)
    app.state.held = HeldAnswers(access)
    app.state.streams = stream.OpenStreams(stream.MOST_STREAMS)
    app.state.exports = stream.OpenStreams(exports.MOST_EXPORTS)
    app.state.health = health.Health(services)
    app.router.routes.extend(ingest.ROUTES)
    for room in (stream, fates, operate, history, reports, exports, policies, proofs, keys):
        app.include_router(room.router, dependencies=[Depends(need_database)])
    for router in (health.router, metrics.router, index):
        app.include_router(router)
    install_problems(app)
    install_openapi(app, write_operations())
    return app


async def stop_waiting(app: FastAPI) -> None:
    """End the streams and the held answers, which would keep a server from stopping."""
    tail: LogTail = app.state.tail
    tail.stop()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    recording = asyncio.create_task(_record_access(app.state.access_record))
    yield
    await stop_waiting(app)
    recording.cancel()
    await run_in_threadpool(_flush, app.state.access_record)
    app.state.health.close()


async def _record_access(record: AccessRecord) -> None:
    while True:
        await asyncio.sleep(_RECORD_EVERY_S)
        if not record.is_empty:
            await run_in_threadpool(_flush, record)


def _flush(record: AccessRecord) -> None:
    try:
        record.flush()
    except Unavailable as error:
        _log.warning("access.not_recorded_yet", error=str(error))


@index.get("/")
async def links() -> JSONResponse:
    """Say what there is."""
    return JSONResponse(
        {
            "name": "restart-orchestrator",
            "version": version("restart-orchestrator"),
            "links": {
                "description": "/openapi.json",
                "workspaces": "/v1/workspaces",
                "restarts": "/v1/restarts",
                "events": "/v1/events",
                "audit": "/v1/audit/summary",
                "stream": "/v1/events/stream",
                "checkpoints": "/v1/audit/checkpoints",
                "ready": "/readyz",
                "metrics": "/metrics",
            },
        }
    )
