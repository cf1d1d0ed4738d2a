"""What connections send is kept until all that is ready has run, and is never lost by that."""

from __future__ import annotations

import asyncio
import socket

from orchestrator.api.gathered_writes import GatheringTransport, gathered_writes


class _Given(asyncio.Protocol):
    """Keeps its transport."""

    def __init__(self) -> None:
        self.made: asyncio.Future[GatheringTransport] = asyncio.get_running_loop().create_future()
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.made.set_result(GatheringTransport(transport, gathered_writes()))

    def pause_writing(self) -> None:
        self.paused = True


async def _connected() -> tuple[GatheringTransport, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, protocol = await asyncio.get_running_loop().create_connection(_Given, sock=ours)
    return await protocol.made, theirs


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 16)
    except BlockingIOError:
        return b""


async def _turn() -> None:
    """Let everything run that is ready, and what it makes ready."""
    for _ in range(2):
        await asyncio.sleep(0)


def test_what_is_written_in_one_turn_is_sent_in_its_order_once_the_turn_is_over() -> None:
    async def go() -> None:
        first, first_end = await _connected()
        second, second_end = await _connected()
        first.write(b"head ")
        first.write(b"body")
        second.write(b"other")
        assert (_received(first_end), _received(second_end)) == (b"", b"")
        await _turn()
        assert (_received(first_end), _received(second_end)) == (b"head body", b"other")
        first.write(b" again")
        await _turn()
        assert _received(first_end) == b" again"
        for transport, end in ((first, first_end), (second, second_end)):
            transport.close()
            end.close()

    asyncio.run(go())


def test_who_writes_much_is_sent_at_once_and_told_to_pause() -> None:
    async def go() -> None:
        transport, end = await _connected()
        for _ in range(64):
            transport.write(b"x" * 65_536)
        protocol = transport.get_protocol()
        assert isinstance(protocol, _Given)
        assert protocol.paused
        assert _received(end)
        transport.abort()
        end.close()

    asyncio.run(go())


def test_a_close_sends_what_is_kept_before_it() -> None:
    async def go() -> None:
        transport, end = await _connected()
        transport.write(b"last words")
        transport.close()
        assert transport.is_closing()
        await _turn()
        assert _received(end) == b"last words"
        assert _received(end) == b""
        end.close()

    asyncio.run(go())


def test_a_connection_that_ended_meanwhile_keeps_nobody_from_being_answered() -> None:
    async def go() -> None:
        gone, gone_end = await _connected()
        other, other_end = await _connected()
        gone.write(b"for nobody")
        other.write(b"for somebody")
        gone.abort()
        await _turn()
        assert (_received(gone_end), _received(other_end)) == (b"", b"for somebody")
        other.close()
        gone_end.close()
        other_end.close()

    asyncio.run(go())


def test_the_other_end_gets_all_before_it_is_told_that_nothing_more_comes() -> None:
    async def go() -> None:
        transport, end = await _connected()
        transport.writelines([b"last ", b"words"])
        assert transport.can_write_eof()
        transport.write_eof()
        await _turn()
        assert (_received(end), _received(end)) == (b"last words", b"")
        transport.close()
        end.close()

    asyncio.run(go())


def test_what_is_asked_of_a_transport_is_asked_of_the_inner_one() -> None:
    async def go() -> None:
        transport, end = await _connected()
        transport.set_write_buffer_limits(high=1_000, low=10)
        assert transport.get_write_buffer_limits() == (10, 1_000)
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        transport.write(b"kept")
        assert transport.get_write_buffer_size() == 4
        transport.close()
        end.close()

    asyncio.run(go())


def test_nothing_that_a_transport_can_is_left_to_its_base() -> None:
    """The base raises for each of them; ``writelines`` is made of ``write``."""
    asked = {name for name in dir(asyncio.Transport) if not name.startswith("_")}
    assert asked - set(vars(GatheringTransport)) == {"writelines"}
