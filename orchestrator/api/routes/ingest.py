"""The two ways in for writes: one, or a batch in one transaction (CONTRACT section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.bodies import JSON, Key, decode_json, read_body
from orchestrator.api.protocol.names import check_instant, check_name, check_text
from orchestrator.api.protocol.openapi import accepts, describe, problems
from orchestrator.api.protocol.problems import Problem, RequestRefused, pointer, problem_of, refused, refused_write
from orchestrator.api.services import Wired, WorkspaceId, traceparent_of
from orchestrator.bootstrap import Services
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.events import Operation
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.record import AcceptedWrite, RecordedBatch, Write, record_writes

NDJSON = "application/x-ndjson"
MAX_WRITES = 10_000
MAX_TEXT = 256

router = APIRouter(tags=["writes"])


class WriteBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One write to a workspace that the URL names."""

    path: str
    op: Operation = Operation.MODIFIED
    source: str | None = None
    id: str | None = None
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    digest: str | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


class BatchedWriteBody(WriteBody, frozen=True):
    """One write of a batch."""

    workspace: str


@dataclass
class _Sorted:
    """A batch's writes: the readable ones with their indexes, and the problems of the others."""

    indexes: list[int] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    rejected: dict[int, Problem] = field(default_factory=dict)


async def single_body(request: Request) -> bytes:
    """Read the body of one write."""
    _, request.state.body = await read_body(request, JSON)
    body: bytes = request.state.body
    return body


async def batch_body(request: Request) -> tuple[str, bytes]:
    """Read the body of a batch, with its media type."""
    media_type, request.state.body = await read_body(request, JSON, NDJSON)
    return media_type, request.state.body


Traceparent = Annotated[str | None, Depends(traceparent_of)]


@router.post(
    "/v1/workspaces/{workspace}/writes",
    status_code=202,
    operation_id="writeFile",
    summary="Report one write",
    responses={
        202: describe(answers.WRITE, "Stored", location=True),
        **problems(400, 404, 408, 409, 413, 415, 422, 500, 503),
    },
    openapi_extra=accepts({JSON: "WriteBody"}, keyed=True),
)
def write_file(
    services: Wired,
    workspace: WorkspaceId,
    raw: Annotated[bytes, Depends(single_body)],
    key: Key,
    traceparent: Traceparent,
) -> JSONResponse:
    """Store one write; the answer comes after the commit."""
    write = to_write(decode_json(raw), workspace, traceparent)
    recorded, replayed = _record(services, [write], key)
    for refusal in recorded.refused:
        raise RequestRefused(refused_write(refusal))
    accepted = recorded.accepted[0]
    location = {"Location": f"/v1/writes/{accepted.id}"}
    return JSONResponse(to_plain(accepted) | {"replayed": replayed or accepted.replayed}, 202, location)


@router.post(
    "/v1/writes",
    status_code=202,
    operation_id="writeFiles",
    summary="Report a batch of writes",
    description=(
        f"At most {MAX_WRITES} writes and 1 MiB, as a JSON array or one JSON object a line, in one transaction. Good "
        "ones are stored whatever the bad ones are: 202 if at least one was accepted. If none was, the answer is "
        "a 422 problem with the same members."
    ),
    responses={
        202: describe(answers.BATCH, "At least one is stored"),
        **problems(400, 408, 409, 413, 415, 422, 500, 503),
    },
    openapi_extra=accepts({JSON: "BatchedWriteBodies", NDJSON: "BatchedWriteBody"}, keyed=True),
)
def write_files(
    services: Wired,
    body: Annotated[tuple[str, bytes], Depends(batch_body)],
    key: Key,
    traceparent: Traceparent,
) -> JSONResponse:
    """Store a batch of writes."""
    found = _sort(*body, traceparent)
    recorded, replayed = _record(services, found.writes, key) if found.writes else (RecordedBatch(), False)
    for refusal in recorded.refused:
        found.rejected[found.indexes[refusal.index]] = refused_write(refusal)
    results = [_result(found.indexes[index], write, replayed) for index, write in sorted(recorded.accepted.items())]
    answer = {
        "accepted": len(results),
        "replayed": sum(result["replayed"] for result in results),
        "results": results,
        "rejected": [{"index": index, "problem": found.rejected[index].plain()} for index in sorted(found.rejected)],
    }
    if not results:
        detail = f"none of the {len(found.rejected)} writes was accepted" if found.rejected else "the batch is empty"
        raise RequestRefused(Problem(name="invalid-input", detail=detail, more=answer))
    return JSONResponse(answer, 202)


def to_write(plain: Any, workspace: str | None, traceparent: str | None = None) -> Write:
    """Return the write that plain values say; ``workspace`` None: they name it. Raises ``OrchestratorError``."""
    body: WriteBody
    try:
        body = msgspec.convert(plain, BatchedWriteBody if workspace is None else WriteBody)
    except msgspec.ValidationError as error:
        raise _mistyped(str(error)) from None
    except UnicodeEncodeError:
        raise InvalidInput("a field's name, or an instant, holds half of a surrogate pair; remove it") from None
    named = check_name(body.workspace, "workspace") if isinstance(body, BatchedWriteBody) else workspace or ""
    return Write(
        workspace=named,
        path=body.path,
        op=body.op,
        source=None if body.source is None else check_text(body.source, "source", most=MAX_TEXT),
        source_id=None if body.id is None else check_text(body.id, "id", most=MAX_TEXT),
        occurred_at=None if body.occurred_at is None else check_instant(body.occurred_at, "occurred_at"),
        digest=None if body.digest is None else check_text(body.digest, "digest", most=MAX_TEXT),
        size=body.size,
        traceparent=traceparent,
    )


def _mistyped(message: str) -> InvalidInput:
    """Return the error for msgspec's words: ``Expected `str`, got `int` - at `$.path```."""
    what, _, where = message.partition(" - at `$")
    name = where.rstrip("`").lstrip(".")
    if not name and "field `" in what:
        name = what.partition("field `")[2].partition("`")[0]
    return InvalidInput(f"{name}: {what}" if name else what, field=name)


def _sort(media_type: str, raw: bytes, traceparent: str | None) -> _Sorted:
    found = _Sorted()
    lines = _lines(raw) if media_type == NDJSON else _items(raw)
    if len(lines) > MAX_WRITES:
        raise refused("content-too-large", f"{len(lines)} writes in one batch; at most {MAX_WRITES} are allowed")
    for index, line in enumerate(lines):
        try:
            write = to_write(decode_json(line) if isinstance(line, bytes) else line, None, traceparent)
        except OrchestratorError as error:
            found.rejected[index] = problem_of(error)
        else:
            found.indexes.append(index)
            found.writes.append(write)
    return found


def _lines(raw: bytes) -> Sequence[bytes]:
    """Return the lines that are not blank."""
    return [line for line in raw.split(b"\n") if line.strip()]


def _items(raw: bytes) -> Sequence[Any]:
    plain = decode_json(raw)
    if not isinstance(plain, list):
        raise refused("invalid-input", "the body must be an array of writes", pointer=pointer(""))
    # A string in the array is no line of its own: only bytes are decoded again.
    return plain


def _record(services: Services, writes: Sequence[Write], key: RequestKey | None) -> tuple[RecordedBatch, bool]:
    return record_writes(
        services.store, writes, actor=services.actor, ids=services.ids, auto=services.auto, request=key
    )


def _result(index: int, write: AcceptedWrite, replayed: bool) -> dict[str, Any]:
    plain = to_plain(write) | {"replayed": replayed or write.replayed}
    return {"index": index, **{name: plain[name] for name in ("id", "position", "decision", "replayed")}}
