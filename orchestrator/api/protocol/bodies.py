"""Request bodies: read within bounds, decoded strictly, and the key that makes a request safe to repeat.

Limits: 1 MiB (413), counted as it arrives; the rest of a larger body is read and thrown away up to a bound, so that
the caller gets the answer rather than a broken pipe.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from email.message import Message
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from orchestrator.api.protocol.names import check_storable
from orchestrator.api.protocol.problems import Problem, RequestRefused, invalid, refused
from orchestrator.service.idempotency import RequestKey

MAX_BODY_BYTES = 1024 * 1024
JSON = "application/json"

_TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes; send it in parts"
_DISCARD_BYTES = 16 * MAX_BODY_BYTES
_BODY_ARRIVES_WITHIN_S = 30.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

ModelT = TypeVar("ModelT", bound="Body")


class Body(BaseModel):
    """A JSON object that a caller sends: unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


async def read_body(request: Request, *media_types: str) -> tuple[str, bytes]:
    """Return the body's media type, one of those given, and its bytes. Raises ``RequestRefused`` (408, 413, 415)."""
    headers = request.headers
    media_type = media_type_of(headers.get("content-type"), headers.get("content-encoding"), media_types)
    if "expect" in headers:
        refuse_large_upload(headers.get("content-length"))
    return media_type, await receive_body(request.receive)


def refuse_large_upload(length: str | None) -> None:
    """Refuse a body that is yet to be sent, and whose sender asks first (``Expect: 100-continue``).

    Raises ``RequestRefused`` (413), and the connection ends: nobody knows whether the body comes all the same.
    """
    if length is not None and length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
        problem = Problem(name="content-too-large", detail=_TOO_LARGE, headers={"Connection": "close"})
        raise RequestRefused(problem)


async def receive_body(receive: Receive) -> bytes:
    """Return a request's body. Raises ``RequestRefused`` (408, 413), ``ClientDisconnect`` if its caller left."""
    first = _Prompt(_bounded(receive))
    if first.is_there:
        return first.value
    try:
        async with asyncio.timeout(_BODY_ARRIVES_WITHIN_S):
            return await first
    except TimeoutError:
        detail = f"the body did not arrive within {_BODY_ARRIVES_WITHIN_S:g} s; send it again"
        raise refused("request-timeout", detail) from None


class _Prompt:
    """A coroutine that has been started: done, where it had nothing to wait for, else to be awaited.

    Most bodies have come with their heads. For them there is no timer to set and to cancel, which takes 5 us.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, bytes]) -> None:
        """Start. Raises what the coroutine raises at once."""
        self._rest = coroutine.__await__()
        self.is_there, self.value = False, b""
        try:
            self._waits_for = next(self._rest)
        except StopIteration as done:
            self.is_there, self.value = True, done.value

    def __await__(self) -> Generator[Any, Any, bytes]:
        try:
            yield self._waits_for
        except BaseException as error:
            self._rest.throw(error)
            raise
        return (yield from self._rest)


async def _bounded(receive: Receive) -> bytes:
    chunks, size, more = [], 0, True
    while more and size <= _DISCARD_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
    if size > MAX_BODY_BYTES:
        raise refused("content-too-large", _TOO_LARGE)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def media_type_of(content_type: str | None, coding: str | None, accepted: Sequence[str]) -> str:
    """Return a body's media type, one of those accepted, as its headers say it. Raises ``RequestRefused`` (415)."""
    if coding is None and content_type is not None and content_type in accepted:
        return content_type
    header = Message()
    header["Content-Type"] = content_type or ""
    found, charset = header.get_content_type(), str(header.get_param("charset", "utf-8"))
    if content_type is None or found not in accepted:
        raise _unsupported(f"send the body as Content-Type: {' or '.join(accepted)}", "Content-Type")
    if charset.lower() not in ("utf-8", "utf8"):
        raise _unsupported(f"charset {charset!r} is not supported; send UTF-8", "Content-Type")
    if coding is not None and coding.lower() != "identity":
        raise _unsupported(
            f"Content-Encoding {coding.lower()!r} is not supported; send the body as it is", "Content-Encoding"
        )
    return found


def _unsupported(detail: str, header: str) -> RequestRefused:
    return refused("unsupported-media-type", detail, header=header)


def decode_json(raw: bytes) -> Any:
    """Return plain values of JSON text. Raises ``RequestRefused`` (400) for what is not UTF-8 or not JSON.

    msgspec refuses half of a surrogate pair, which the JSON of a path may hold as an escape: such texts
    go through the standard library.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused("bad-request", f"the body is not UTF-8 (byte {error.start}); encode it as UTF-8") from None
    try:
        if _SURROGATE.search(raw) is not None:
            return json.loads(text, parse_constant=_refuse_constant)
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise refused("bad-request", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise refused("bad-request", "the body is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def json_body(model: type[ModelT]) -> Callable[[Request], Awaitable[ModelT]]:
    """Return the dependency that reads a body as ``model``."""

    async def read(request: Request) -> ModelT:
        plain = await _json(request)
        try:
            return model.model_validate(plain)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestRefused(invalid(found)) from None

    return read


async def json_object(request: Request) -> dict[str, Any]:
    """Read a body that is any JSON object. Raises ``RequestRefused``."""
    plain = await _json(request)
    if not isinstance(plain, dict):
        raise refused("invalid-input", "the body must be an object", pointer="")
    return plain


async def _json(request: Request) -> Any:
    _, raw = await read_body(request, JSON)
    request.state.body = raw
    plain = decode_json(raw)
    check_storable(plain)
    return plain


async def request_key(request: Request) -> RequestKey | None:
    """Return the caller's ``Idempotency-Key`` with what it was sent with; None without one.

    Depends on the body having been read. Raises ``RequestRefused`` (400) for a key that is no key.
    """
    key = checked_key(request.headers.get("idempotency-key"))
    return None if key is None else key_for(key, request.method, request.url.path, request.state.body)


def checked_key(key: str | None) -> str | None:
    """Return an ``Idempotency-Key``, None without one. Raises ``RequestRefused`` (400)."""
    if key is not None and _KEY.fullmatch(key) is None:
        detail = "Idempotency-Key must be 1 to 255 visible ASCII characters"
        raise refused("bad-request", detail, header="Idempotency-Key")
    return key


def key_for(key: str, method: str, path: str, body: bytes) -> RequestKey:
    """Return a key with the fingerprint of what it was sent with."""
    digest = hashlib.sha256(f"{method} {path}\n".encode() + body)
    return RequestKey(key=key, fingerprint=digest.hexdigest())


Key = Annotated[RequestKey | None, Depends(request_key)]
"""Name it after the body among a route's parameters: dependencies are resolved in their order."""
