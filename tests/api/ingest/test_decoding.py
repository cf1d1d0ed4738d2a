"""Decoding at once, from bytes to structs, is decoding step by step, only sooner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from orchestrator.api.protocol import bodies, write_bodies
from orchestrator.api.protocol.bodies import JSON, decode_json, receive_body
from orchestrator.api.protocol.problems import Problem, RequestRefused, problem_of
from orchestrator.api.protocol.write_bodies import NDJSON, SortedBatch, read_write, sort_batch, to_write
from orchestrator.errors import OrchestratorError
from orchestrator.service.record import Write
from tests.fuzz.damage import inputs
from tests.fuzz.seeds import seed
from tests.thorough import examples

ValueT = TypeVar("ValueT")
many_damaged = settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))


def told(read: Callable[[], ValueT]) -> ValueT | Problem:
    try:
        return read()
    except OrchestratorError as error:
        return problem_of(error)


@many_damaged
@given(raw=inputs(seed("write")))
def test_one_write(raw: bytes) -> None:
    at_once: Write | Problem = told(lambda: read_write(raw, "ws", "trace"))
    assert at_once == told(lambda: to_write(decode_json(raw), "ws", "trace"))


@pytest.mark.parametrize(("kind", "name"), [(JSON, "batch"), (NDJSON, "ndjson")])
@many_damaged
@given(data=st.data())
def test_a_batch(kind: str, name: str, data: st.DataObject) -> None:
    raw = data.draw(inputs(seed(name)))
    at_once: SortedBatch | Problem = told(lambda: sort_batch(kind, raw, None))
    with pytest.MonkeyPatch.context() as patch:
        for decoder in ("_BATCH", "_BATCHED"):
            patch.setattr(write_bodies, decoder, Never())
        assert at_once == told(lambda: sort_batch(kind, raw, None))


class Never:
    """A decoder that takes nothing."""

    def decode(self, raw: bytes) -> None:
        raise UnicodeError


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_body_that_comes_late_is_read_whole_and_one_that_stops_is_refused(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def receive_late(ends: bool) -> bytes:
        sent = 0

        async def receive() -> Message:
            nonlocal sent
            await asyncio.sleep(0)
            sent += 1
            if sent > pieces and not ends:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"ab", "more_body": not ends or sent < pieces}

        return await receive_body(receive)

    assert asyncio.run(receive_late(ends=True)) == b"ab" * pieces
    monkeypatch.setattr(bodies, "_BODY_ARRIVES_WITHIN_S", 0.01)
    with pytest.raises(RequestRefused, match=r"did not arrive within 0\.01 s"):
        asyncio.run(receive_late(ends=False))


def test_a_request_that_is_cancelled_while_its_body_comes_leaves_nothing_waiting() -> None:
    ended = []

    async def receive() -> Message:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return {}

    async def run() -> None:
        task = asyncio.create_task(receive_body(receive))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(run())
