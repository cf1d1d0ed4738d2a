"""What holds for every request: who may send it, an id on it and its log lines, an answer even where the code fails."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

import structlog
import uuid_utils
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from orchestrator.api.protocol.hosts import Hosts
from orchestrator.api.protocol.origins import is_of_other_site
from orchestrator.api.protocol.problems import Problem, refusal_in, respond, respond_to
from orchestrator.errors import Forbidden, OrchestratorError, RateExceeded, Unauthenticated
from orchestrator.service.access import NOBODY, Access, Principal, Refusal
from orchestrator.service.access_record import AccessRecord
from orchestrator.service.read_budget import ReadBudgets

_READING = frozenset({"GET", "HEAD"})
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
"""What something in front adds: whoever comes from there is not on this machine because it is."""

PROBES = frozenset({"/livez", "/readyz"})
"""What supervisors ask, under whatever name and without a key."""

_REQUEST_ID = b"x-request-id"
_DOUBLED = "the header Authorization came twice: what stands in front and this API could each believe another; send one"
_HEAD = "orchestrator.head"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_ON_LOG_LINES: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id")
"""Bound as structlog binds it, whose own function for that takes 3 us a request, a tenth of all that a write takes."""
_log = structlog.get_logger("orchestrator")


class RequestContext:
    """ASGI middleware. A caller's own good ``X-Request-Id`` is kept; else the request gets one.

    A request that names a host which is not ours, that another site's page sends, or whose caller is not admitted, is
    refused; who was admitted is ``state.principal``. What was refused and what keys have read is recorded. ``PROBES``
    are for everybody.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, access: Access, record: AccessRecord) -> None:
        self.app, self._hosts, self._access, self._record = app, hosts, access, record
        self._budgets = ReadBudgets()

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
            await (await self._served(scope, head))(scope, receive, send_named)
            self._note(scope)
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

    async def _served(self, scope: Scope, head: Mapping[bytes, bytes]) -> ASGIApp:
        """Return what answers the request: the app, or a refusal."""
        if scope["path"] in PROBES:
            return self.app
        host = head.get(b"host")
        if host is not None and not self._hosts.accepts(host):
            return respond(Request(scope), _misdirected(host))
        try:
            if is_of_other_site(scope["method"], head):
                raise _of_other_site(head)
            scope["state"]["principal"] = caller = await self._admitted(head, scope["headers"])
            if caller.key is not None and caller.reads_per_minute is not None and scope["method"] in _READING:
                self._budgets.take(caller.actor, caller.reads_per_minute)
        except OrchestratorError as error:
            return respond_to(Request(scope), error)
        return self.app

    async def _admitted(self, head: Mapping[bytes, bytes], headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Return who asks. Raises ``Unauthenticated``, and ``Unavailable`` where the keys cannot be read."""
        sent = head.get(b"authorization")
        key = None if sent is None else sent.decode("latin-1")
        if sent is not None and sum(name == b"authorization" for name, _ in headers) > 1:
            raise Unauthenticated(_DOUBLED, reason=Refusal.MALFORMED)
        if self._access.needs_look(key):
            await run_in_threadpool(self._access.book.look)
        forwarded = key is None and any(name in head for name in _FORWARDED)
        try:
            return self._access.admit(key, forwarded=forwarded)
        except Unauthenticated as error:
            if error.reason != Refusal.UNKNOWN or not self._access.book.take_look():
                raise
        await run_in_threadpool(self._access.book.look, again=True)
        return self._access.admit(key, forwarded=forwarded)

    def _note(self, scope: Scope) -> None:
        """Count a refusal, and what somebody with a key has read."""
        refused = refusal_in(scope)
        caller: Principal | None = scope["state"].get("principal")
        at, what = datetime.now(UTC), f"{scope['method']} {scope['path']}"
        if refused is not None:
            who = caller.actor if caller is not None else getattr(refused, "caller", NOBODY)
            needs = getattr(refused, "needs", None) or None
            self._record.denied(who, _reason_of(refused), what, needs, at)
            _log.info("access.denied", caller=who, reason=_reason_of(refused), what=what[:200], needs=needs)
        elif caller is not None and caller.actor != NOBODY and scope["method"] in _READING:
            route = getattr(scope.get("route"), "path", "other")
            self._record.read(caller.actor, f"{scope['method']} {route}", at)


def _reason_of(refused: OrchestratorError) -> Refusal:
    if isinstance(refused, Unauthenticated):
        return Refusal(refused.reason)
    if isinstance(refused, RateExceeded):
        return Refusal.RATE
    return Refusal.CROSS_ORIGIN if isinstance(refused, CrossOrigin) else Refusal.SCOPE


class CrossOrigin(Forbidden):
    """Another site's page asks."""


def _of_other_site(head: Mapping[bytes, bytes]) -> CrossOrigin:
    origin = head.get(b"origin", b"another site").decode("latin-1")[:100]
    return CrossOrigin(
        f"a page of {origin} sends this request, and pages of other sites change nothing here; programs send neither "
        "Origin nor Sec-Fetch-Site"
    )


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
