"""The two ways in for writes: one, or a batch in one transaction (CONTRACT section 5).

Plain ASGI: nothing stands between the server and these lines but ``RequestContext``. FastAPI would take twice as long
as they do, and the service's share comes on top. Their answers are those that FastAPI gave (``tests/api/ingest``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestrator.api.commits import Commits
from orchestrator.api.protocol.bodies import (
    JSON,
    checked_key,
    key_for,
    media_type_of,
    receive_body,
    refuse_large_upload,
)
from orchestrator.api.protocol.gate import Gate
from orchestrator.api.protocol.names import NAME_PATTERN, is_name
from orchestrator.api.protocol.problems import Problem, RequestRefused, invalid, refused_write, respond_to
from orchestrator.api.protocol.request_context import head_of
from orchestrator.api.protocol.write_bodies import NDJSON, SortedBatch, read_write, sort_batch
from orchestrator.api.protocol.write_operations import MANY, ONE
from orchestrator.api.services import Desk, well_formed_trace
from orchestrator.domain.encoding import format_instant
from orchestrator.domain.events import WriteDecision
from orchestrator.domain.policy import Action
from orchestrator.domain.scopes import Scope as Scopes
from orchestrator.errors import OrchestratorError
from orchestrator.service.access import Permit, permit
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.record import (
    AcceptedWrite,
    RecordedBatch,
    Write,
    matching_of,
    told,
)
from orchestrator.service.rule_matching import TRIES, RulesMoved, rules_keep_changing

_LARGE_BODY_BYTES = 64 * 1024
"""A body from here on is decoded, and its answer made, beside the event loop: 1 MiB takes tens of milliseconds."""

_FEW_PAIRS = 1_000
"""So many pairs of a path and a rule are matched on the event loop: 8 ms with the worst of paths (measured)."""

_JSON_TYPE = (b"content-type", JSON.encode())
_NO_NAME = invalid([{"loc": ("path", "workspace"), "type": "", "msg": f"String should match pattern '{NAME_PATTERN}'"}])
_encode = msgspec.json.Encoder().encode


class WriteAnswer(msgspec.Struct, frozen=True):
    """The answer to one write."""

    id: str
    workspace: str
    position: int
    action: Action
    decision: WriteDecision
    due_at: str | None
    replayed: bool


class BatchResult(msgspec.Struct, frozen=True):
    """An accepted write of a batch."""

    index: int
    id: str
    position: int
    decision: WriteDecision
    replayed: bool


class Rejected(msgspec.Struct, frozen=True):
    """A refused write of a batch."""

    index: int
    problem: dict[str, Any]


class BatchAnswer(msgspec.Struct, frozen=True):
    """The answer to a batch."""

    accepted: int
    replayed: int
    results: list[BatchResult]
    rejected: list[Rejected]


class Asked:
    """A request for one of the two ways in. What it says is refused in the order of these methods."""

    __slots__ = ("_head", "_key", "_receive", "body", "commits", "desk", "permit", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self._receive, self._head = scope, receive, head_of(scope)
        self.desk: Desk = scope["app"].state.desk
        self.permit: Permit
        self.commits: Commits = scope["app"].state.commits
        self._key: str | None = None
        self.body = b""

    async def read(self, *media_types: str) -> str:
        """Read the body; return its media type. Raises ``RequestRefused`` for it and for a key that is none."""
        media_type = media_type_of(self._header(b"content-type"), self._header(b"content-encoding"), media_types)
        if b"expect" in self._head:
            refuse_large_upload(self._header(b"content-length"))
        self.body = await receive_body(self._receive)
        self._key = checked_key(self._header(b"idempotency-key"))
        return media_type

    def need(self, scope: Scopes) -> None:
        """Let in whoever may do that to something. Raises ``Unauthenticated``, ``Forbidden``."""
        self.permit = permit(self.scope["state"]["principal"], scope, f"POST {self.scope['path']}")

    def traceparent(self) -> str | None:
        """Return the W3C trace context that came with it, if it is well formed."""
        return well_formed_trace(self._header(b"traceparent"))

    def key_at(self, path: str, **names: str) -> RequestKey | None:
        """Return the ``Idempotency-Key`` with what it was sent with; None without one."""
        return None if self._key is None else key_for(self._key, "POST", path.format(**names), self.body)

    def _header(self, name: bytes) -> str | None:
        found = self._head.get(name)
        return None if found is None else found.decode("latin-1")


async def record(asked: Asked, writes: Sequence[Write], key: RequestKey | None) -> tuple[RecordedBatch, bool]:
    """Hand writes to the service: what became of each, after the commit, and whether that was answered before."""
    matching = matching_of(writes)
    unit = asked.desk.record_unit(asked.permit, writes, matching, key)
    match_by_last, learn = matching.match_by_last, matching.learn
    await run_in_threadpool(match_by_last) if matching.pairs > _FEW_PAIRS else match_by_last()
    for _ in range(TRIES):
        try:
            return told(await asked.commits.commit(unit))
        except RulesMoved as moved:
            await run_in_threadpool(learn, moved.rules)
    raise rules_keep_changing()


class _WayIn:
    """An ASGI app that answers with JSON, or with a problem."""

    needs = Scopes.WRITES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            gate: Gate = scope["app"].state.gate
            if not gate.is_open:
                await gate.pass_through()
            asked = Asked(scope, receive)
            asked.need(self.needs)  # before a byte of the body is read
            body, headers = await self.answer(asked)
        except OrchestratorError as error:
            await respond_to(Request(scope), error)(scope, receive, send)
            return
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 202, "headers": [length, _JSON_TYPE, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, asked: Asked) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Return the answer's body and its own headers. Raises ``OrchestratorError``."""
        raise NotImplementedError


class OneWrite(_WayIn):
    """Stores one write; the answer comes after the commit."""

    async def answer(self, asked: Asked) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Return what the write led to."""
        await asked.read(JSON)
        workspace: str = asked.scope["path_params"]["workspace"]
        if not is_name(workspace):
            raise RequestRefused(_NO_NAME)
        write = read_write(asked.body, workspace, asked.traceparent())
        recorded, replayed = await record(asked, [write], asked.key_at(ONE, workspace=workspace))
        for refusal in recorded.refused:
            raise RequestRefused(refused_write(refusal))
        accepted = recorded.accepted[0]
        return _encode(_answer(accepted, replayed)), [(b"location", f"/v1/writes/{accepted.id}".encode())]


class ManyWrites(_WayIn):
    """Stores a batch of writes."""

    async def answer(self, asked: Asked) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Return what became of each."""
        media_type = await asked.read(JSON, NDJSON)
        is_large = len(asked.body) >= _LARGE_BODY_BYTES
        wanted = (media_type, asked.body, asked.traceparent())
        found = await run_in_threadpool(sort_batch, *wanted) if is_large else sort_batch(*wanted)
        recorded, replayed = RecordedBatch(), False
        if found.writes:
            recorded, replayed = await record(asked, found.writes, asked.key_at(MANY))
        told = (found, recorded, replayed)
        return await run_in_threadpool(_batch_answer, *told) if is_large else _batch_answer(*told), []


def _answer(accepted: AcceptedWrite, replayed: bool) -> WriteAnswer:
    return WriteAnswer(
        id=accepted.id,
        workspace=accepted.workspace,
        position=accepted.position,
        action=accepted.action,
        decision=accepted.decision,
        due_at=None if accepted.due_at is None else format_instant(accepted.due_at),
        replayed=replayed or accepted.replayed,
    )


def _batch_answer(found: SortedBatch, recorded: RecordedBatch, replayed: bool) -> bytes:
    """Return the answer to a batch. Raises ``RequestRefused`` where nothing was accepted."""
    for refusal in recorded.refused:
        found.rejected[found.indexes[refusal.index]] = refused_write(refusal)
    results = [
        BatchResult(found.indexes[index], write.id, write.position, write.decision, replayed or write.replayed)
        for index, write in sorted(recorded.accepted.items())
    ]
    rejected = [Rejected(index, found.rejected[index].plain()) for index in sorted(found.rejected)]
    answer = BatchAnswer(len(results), sum(result.replayed for result in results), results, rejected)
    if not results:
        detail = f"none of the {len(rejected)} writes was accepted" if rejected else "the batch is empty"
        raise RequestRefused(Problem(name="invalid-input", detail=detail, more=msgspec.to_builtins(answer)))
    return _encode(answer)


# The router knows them too, for the methods that an address allows.
ROUTES = (Route(ONE, OneWrite(), methods=["POST"]), Route(MANY, ManyWrites(), methods=["POST"]))


def is_write(scope: Scope) -> bool:
    """Return whether a request is for one of the ways in; if so, ``serve`` serves it."""
    if scope["type"] == "http" and scope["method"] == "POST":
        for route in ROUTES:
            found = route.path_regex.match(scope["path"])
            if found is not None:
                scope["endpoint"], scope["path_params"] = route.endpoint, found.groupdict()
                return True
    return False


def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Serve a request that ``is_write``."""
    answered: Awaitable[None] = scope["endpoint"](scope, receive, send)
    return answered
