"""What holds for every request: an id on it and on its log lines, and an answer even where the code fails."""

from __future__ import annotations

import re

import structlog
import uuid_utils
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.protocol.hosts import is_loopback
from orchestrator.api.protocol.problems import Problem, respond

REQUEST_ID = "X-Request-Id"

_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_log = structlog.get_logger("orchestrator")


class RequestContext:
    """ASGI middleware. A caller's own good ``X-Request-Id`` is kept; else the request gets one.

    ``only_loopback``: a request that names another host than this machine is refused.
    """

    def __init__(self, app: ASGIApp, *, only_loopback: bool) -> None:
        self.app, self._only_loopback = app, only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _given(scope) or f"req_{uuid_utils.uuid7().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._served(scope)(scope, receive, send_named)
            except ClientDisconnect:
                _log.info("request.left", method=scope["method"], path=scope["path"])
            except Exception:
                _log.exception("request.failed", method=scope["method"], path=scope["path"])
                if started:
                    raise
                detail = f"the server failed at this request; its log says why under request id {request_id}"
                response = respond(Request(scope), Problem(name="internal-error", detail=detail))
                await response(scope, receive, send_named)

    def _served(self, scope: Scope) -> ASGIApp:
        host = Headers(scope=scope).get("host", "localhost")
        if not self._only_loopback or is_loopback(host):
            return self.app
        detail = (
            f"this API serves its own machine only, and the request names {host[:100]!r}; set "
            "ORCHESTRATOR_ALLOW_UNAUTHENTICATED=true if something in front of it checks callers"
        )
        return respond(Request(scope), Problem(name="misdirected-request", detail=detail))


def _given(scope: Scope) -> str | None:
    found = Headers(scope=scope).get(REQUEST_ID)
    return found if found is not None and _GOOD_ID.fullmatch(found) else None
