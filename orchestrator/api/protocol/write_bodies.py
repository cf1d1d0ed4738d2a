"""Bodies of writes: decoded straight from bytes to structs, and refused in the API's own words.

A good body is decoded once. Whatever msgspec does not take that way is decoded again by ``decode_json``, step by step:
it takes a little more (half of a surrogate pair in a path), and it knows what to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import msgspec

from orchestrator.api.protocol.bodies import decode_json
from orchestrator.api.protocol.names import check_instant, check_name, check_text
from orchestrator.api.protocol.problems import Problem, pointer, problem_of, refused
from orchestrator.domain.events import Operation
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.service.record import Write

NDJSON = "application/x-ndjson"
MAX_WRITES = 10_000
MAX_TEXT = 256


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
class SortedBatch:
    """A batch's writes: the readable ones with their indexes, and the problems of the others."""

    indexes: list[int] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    rejected: dict[int, Problem] = field(default_factory=dict)


_ONE = msgspec.json.Decoder(WriteBody)
_BATCHED = msgspec.json.Decoder(BatchedWriteBody)
_BATCH = msgspec.json.Decoder(list[BatchedWriteBody])
_NOT_TAKEN = (msgspec.MsgspecError, UnicodeError, RecursionError)


def read_write(raw: bytes, workspace: str, traceparent: str | None) -> Write:
    """Return the write of one body. Raises ``OrchestratorError``."""
    try:
        body = _ONE.decode(raw)
    except _NOT_TAKEN:
        return to_write(decode_json(raw), workspace, traceparent)
    return _checked(body, workspace, traceparent)


def sort_batch(media_type: str, raw: bytes, traceparent: str | None) -> SortedBatch:
    """Return a batch's writes, the good and the bad. Raises ``OrchestratorError`` for what is no batch at all."""
    items = _lines(raw) if media_type == NDJSON else _items(raw)
    if len(items) > MAX_WRITES:
        raise refused("content-too-large", f"{len(items)} writes in one batch; at most {MAX_WRITES} are allowed")
    found = SortedBatch()
    for index, item in enumerate(items):
        try:
            write = _batched_write(item, traceparent)
        except OrchestratorError as error:
            found.rejected[index] = problem_of(error)
        else:
            found.indexes.append(index)
            found.writes.append(write)
    return found


def to_write(plain: Any, workspace: str | None, traceparent: str | None = None) -> Write:
    """Return the write that plain values say; ``workspace`` None: they name it. Raises ``OrchestratorError``."""
    body: WriteBody
    try:
        body = msgspec.convert(plain, BatchedWriteBody if workspace is None else WriteBody)
    except msgspec.ValidationError as error:
        raise _mistyped(str(error)) from None
    except UnicodeEncodeError:
        raise InvalidInput("a field's name, or an instant, holds half of a surrogate pair; remove it") from None
    return _checked(body, workspace or "", traceparent)


def _checked(body: WriteBody, workspace: str, traceparent: str | None) -> Write:
    return Write(
        workspace=check_name(body.workspace, "workspace") if isinstance(body, BatchedWriteBody) else workspace,
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


def _lines(raw: bytes) -> Sequence[bytes]:
    """Return the lines that are not blank."""
    return [line for line in raw.split(b"\n") if line.strip()]


def _items(raw: bytes) -> Sequence[Any]:
    """Return the items of an array: as structs where all of them are good, else as plain values."""
    try:
        return _BATCH.decode(raw)
    except _NOT_TAKEN:
        plain = decode_json(raw)
    if not isinstance(plain, list):
        raise refused("invalid-input", "the body must be an array of writes", pointer=pointer(""))
    return plain


def _batched_write(item: Any, traceparent: str | None) -> Write:
    """Return the write of an item: a struct, plain values, or a line. A string in an array is no line of its own."""
    if isinstance(item, bytes):
        try:
            item = _BATCHED.decode(item)
        except _NOT_TAKEN:
            item = decode_json(item)
    return _checked(item, "", traceparent) if isinstance(item, BatchedWriteBody) else to_write(item, None, traceparent)
