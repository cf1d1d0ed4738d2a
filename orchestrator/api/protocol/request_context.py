"""What holds for every request: who may send it, an id on it and its log lines, an answer even where the code fails."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar

import structlog
import uuid_utils
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from orchestrator.api.protocol.hosts import Hosts
from orchestrator.api.protocol.problems import Problem, problem_of, respond
from orchestrator.errors import Unauthenticated
from orchestrator.service.access import Access

PROBES = frozenset({"/livez", "/readyz"})
"""What supervisors ask, under whatever name and without a key."""

_REQUEST_ID = b"x-request-id"
_HEAD = "orchestrator.head"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_ON_LOG_LINES: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id")
"""Bound as structlog binds it, whose own function for that takes 3 us a request, a tenth of all that a write takes."""
_log = structlog.get_logger("orchestrator")


class RequestContext:
    """ASGI middleware. A caller's own good ``X-Request-Id`` is kept; else the request gets one.

    A request that names a host which is not ours, or whose caller is not admitted, is refused; who was admitted is
    ``state.principal``. ``PROBES`` are for everybody.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, access: Access) -> None:
        self.app, self._hosts, self._access = app, hosts, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = head_of(scope)
        request_id = _good(head.get(_REQUEST_ID)) or f"req_{uuid_utils.uuid7().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        named, started = (_REQUEST_ID, request_id.encode()), False

        def send_named(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), named]
            return send(message)

        on_log_lines = _ON_LOG_LINES.set(request_id)
        try:
            await self._served(scope, head)(scope, receive, send_named)
        except ClientDisconnect:
            _log.info("request.left", method=scope["method"], path=scope["path"])
        except Exception:
            _log.exception("request.failed", method=scope["method"], path=scope["path"])
            if started:
                raise
            detail = f"the server failed at this request; its log says why under request id {request_id}"
            response = respond(Request(scope), Problem(name="internal-error", detail=detail))
            await response(scope, receive, send_named)
        finally:
            _ON_LOG_LINES.reset(on_log_lines)

    def _served(self, scope: Scope, head: Mapping[bytes, bytes]) -> ASGIApp:
        host, key = head.get(b"host"), head.get(b"authorization")
        if host is not None and not self._hosts.accepts(host) and scope["path"] not in PROBES:
            return respond(Request(scope), _misdirected(host))
        try:
            scope["state"]["principal"] = self._access.admit(None if key is None else key.decode("latin-1"))
        except Unauthenticated as error:
            if scope["path"] not in PROBES:
                return respond(Request(scope), problem_of(error))
        return self.app


def _misdirected(host: bytes) -> Problem:
    detail = (
        f"the request names the host {host.decode('latin-1')[:100]!r}, which is none of this API's: by default it "
        "answers to localhost and 127.0.0.1; name others in ORCHESTRATOR_ALLOWED_HOSTS, with commas between them"
    )
    return Problem(name="misdirected-request", detail=detail)


def head_of(scope: Scope) -> Mapping[bytes, bytes]:
    """Return a request's headers by their names in small letters; of several with one name the first."""
    head: Mapping[bytes, bytes] | None = scope.get(_HEAD)
    if head is None:
        head = scope[_HEAD] = dict(reversed(scope["headers"]))
    return head


def _good(given: bytes | None) -> str | None:
    return given.decode() if given is not None and _GOOD_ID.fullmatch(given) else None
